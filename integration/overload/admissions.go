package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/priority"

	"github.com/admit-go/admit"
)

// admission decides who comes to the service. Each stands in a Policy that finds out who
// calls, and answers errors alike.
type admission struct {
	name    string
	prepare func(ctx context.Context, workers int, p *admit.Policy) (innermost admit.Middleware, err error)
	heedful bool // see service
}

func without(heedful bool) admission {
	name := "none"
	if !heedful {
		name = "none; the service does not see that clients leave"
	}
	return admission{name, func(context.Context, int, *admit.Policy) (admit.Middleware, error) { return nil, nil }, heedful}
}

// size is a number of places: so many for each worker, or so many whatever the workers are.
type size struct {
	times float64
	fixed int
}

func (s size) of(workers int) int { return max(1, int(s.times*float64(workers))+s.fixed) }

func (s size) String() string {
	if s.fixed > 0 {
		return fmt.Sprintf("of %d", s.fixed)
	}
	return fmt.Sprintf("%g×", s.times)
}

func maxInFlight(s size) admission {
	return admission{fmt.Sprintf("MaxInFlight %s", s), func(_ context.Context, workers int, p *admit.Policy) (_ admit.Middleware, err error) {
		p.InFlight, err = admit.NewInFlight(admit.InFlightConfig{Max: s.of(workers)})
		return nil, err
	}, true}
}

func inFlightQueue() admission {
	return admission{"InFlight 1×, queue 5×, 50 ms", func(_ context.Context, workers int, p *admit.Policy) (_ admit.Middleware, err error) {
		p.InFlight, err = admit.NewInFlight(admit.InFlightConfig{Max: workers, Queue: 5 * workers, Wait: 50 * time.Millisecond})
		return nil, err
	}, true}
}

// shedder prefers plans.
func shedder(s size) admission {
	return admission{fmt.Sprintf("Shedder %s", s), func(_ context.Context, workers int, p *admit.Policy) (_ admit.Middleware, err error) {
		p.Shedder, err = admit.NewShedder(admit.ShedderConfig{Max: s.of(workers), Plans: sold})
		return nil, err
	}, true}
}

// failsafeDefault is failsafe-go's adaptive limiter as it comes: it starts at 20, whatever
// the service is.
func failsafeDefault() admission {
	return failsafeAs("failsafe-go, default", func(_ context.Context, _ int, b adaptivelimiter.Builder[any]) failsafe.Policy[any] { return b.Build() })
}

// failsafeFrom starts at another number.
func failsafeFrom(s size) admission {
	return failsafeAs(fmt.Sprintf("failsafe-go from %s", s), func(_ context.Context, workers int, b adaptivelimiter.Builder[any]) failsafe.Policy[any] {
		start := uint(s.of(workers))
		return b.WithLimits(1, max(200, start), start).Build()
	})
}

// failsafeQueue lets two to three times the limit wait, as the prioritizer does by default.
func failsafeQueue() admission {
	return failsafeAs("failsafe-go, queue", func(_ context.Context, _ int, b adaptivelimiter.Builder[any]) failsafe.Policy[any] {
		return b.WithQueueing(2, 3).Build()
	})
}

// failsafePlans prefers plans.
func failsafePlans() admission {
	return failsafeAs("failsafe-go, prioritizer", func(ctx context.Context, _ int, b adaptivelimiter.Builder[any]) failsafe.Policy[any] {
		prioritizer := adaptivelimiter.NewPrioritizer()
		prioritizer.ScheduleCalibrations(ctx, time.Second)
		return b.BuildPrioritized(prioritizer)
	})
}

// failsafeUsage prefers, among the callers of a plan, those who have used less.
func failsafeUsage() admission {
	return failsafeAs("failsafe-go, prioritizer by usage", func(ctx context.Context, _ int, b adaptivelimiter.Builder[any]) failsafe.Policy[any] {
		prioritizer := adaptivelimiter.NewPrioritizerBuilder().
			WithUsageTracker(priority.NewUsageTracker(time.Minute, len(callers))).Build()
		prioritizer.ScheduleCalibrations(ctx, time.Second)
		return b.BuildPrioritized(prioritizer)
	})
}

func failsafeAs(name string, build func(context.Context, int, adaptivelimiter.Builder[any]) failsafe.Policy[any]) admission {
	return admission{name, func(ctx context.Context, workers int, _ *admit.Policy) (admit.Middleware, error) {
		executor := failsafe.With(build(ctx, workers, adaptivelimiter.NewBuilder[any]()))
		return func(next http.Handler) http.Handler {
			return admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				key, _ := admit.KeyFrom(r.Context())
				ctx := priority.ContextWithUser(priorities[key.Plan].AddTo(r.Context()), key.ID)
				err := executor.WithContext(ctx).Run(func() error {
					next.ServeHTTP(w, r)
					return nil
				})
				if errors.Is(err, adaptivelimiter.ErrExceeded) {
					return errExceeded
				}
				return err
			})
		}, nil
	}, true}
}

var (
	priorities  = map[string]priority.Priority{"free": priority.Low, "pro": priority.High}
	errExceeded = &admit.Error{Status: http.StatusTooManyRequests, Code: "overloaded", Message: "Too many requests at once.", RetryAfter: time.Second}
)

// callers have a key each. Those of plan pro come first.
var callers = func() (all [100]caller) {
	for i := range all {
		all[i].token = fmt.Sprintf("overload_%032d", i)
		all[i].key = &admit.Key{ID: fmt.Sprintf("caller-%d", i), Plan: "free"}
		if i < paying {
			all[i].key.Plan = "pro"
		}
	}
	return all
}()

type caller struct {
	token string
	key   *admit.Key
}

const paying = 10

var sold = func() *admit.Plans {
	plans, err := admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro", Includes: "free"})
	if err != nil {
		panic(err)
	}
	return plans
}()

// protect puts the admission in front of a service with so many workers, until ctx ends.
func (a admission) protect(ctx context.Context, workers int, service http.Handler) (http.Handler, error) {
	keys := admit.KeyMap{}
	for _, c := range callers {
		keys[admit.DigestOf(c.token)] = c.key
	}
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys})
	if err != nil {
		return nil, err
	}
	p := admit.Policy{Auth: auth}
	innermost, err := a.prepare(ctx, workers, &p)
	if err != nil {
		return nil, err
	}
	chain, err := p.Chain()
	if err != nil {
		return nil, err
	}
	if innermost != nil {
		chain = chain.Append(innermost)
	}
	return chain.Then(service), nil
}
