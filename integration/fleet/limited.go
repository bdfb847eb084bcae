package main

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/admit-go/admit"
)

// limit is the one of a limited service.
var limit = admit.PerSecond(1000)

// limited is a service that does nothing but limit, and what its replicas have decided.
type limited struct {
	lease admit.Lease
	began time.Time

	mu        sync.Mutex
	decisions []decision
}

// decision is one of a Limiter: made between two times since the beginning.
type decision struct {
	from, to time.Duration
	admitted bool
	alone    bool // by the share of the replica, since Redis did not answer in time
}

func (d decision) took() time.Duration { return d.to - d.from }

func (s *limited) replica(_ context.Context, f *fleet, _ int, keys admit.KeyStore) (http.Handler, error) {
	store, err := f.newLimitStore()
	if err != nil {
		return nil, err
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{
		Name: "fleet", Limits: []admit.Limit{limit}, Store: store, Replicas: f.size, Lease: s.lease, Observe: s.observe,
	})
	if err != nil {
		return nil, err
	}
	f.closers = append(f.closers, func() { _ = limiter.Close(context.Background()) })
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys})
	if err != nil {
		return nil, err
	}
	outer := admit.Policy{Errors: &admit.ErrorWriter{Logger: quiet}, Auth: auth}
	chain, err := outer.Chain()
	if err != nil {
		return nil, err
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	return chain.Then(arriving(limiter.Wrap(answer))), nil
}

type arrival struct{}

// arriving notes when a request comes to a Limiter.
func arriving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), arrival{}, time.Now())))
	})
}

func (s *limited) observe(r *http.Request, e admit.LimitEvent) {
	to := time.Since(s.began)
	from := r.Context().Value(arrival{}).(time.Time).Sub(s.began)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decisions = append(s.decisions, decision{from, to, e.Decision.Allowed, e.Err != nil})
}

// take returns what was decided since it was last called.
func (s *limited) take() []decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.decisions
	s.decisions = nil
	return all
}
