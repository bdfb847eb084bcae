package admit

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/gate"
)

// ShedderConfig configures NewShedder.
type ShedderConfig struct {
	// Max is how many requests may be worked on at once. Required. Permitted: 1 or more. Start
	// with twice as many as the service can work on. With too few, the service is idle while
	// requests are rejected. With too many, requests wait inside the service, where none are
	// rejected; that costs only latency, as long as they are done before their clients give up.
	Max int
	// Plans gives priorities to callers. A later plan goes before an earlier one. Callers without
	// a plan, or with an unknown one, go last.
	Plans *Plans
	// Priority returns the priority of a request, instead of Plans. The higher one goes first.
	// By default, without Plans, all requests are equal. Prohibited together with Plans.
	Priority func(*http.Request) int
	// Interval is the longest time that a request waits for a place. A burst that is over within
	// Interval causes no rejection. It should be at least as long as most requests take. Zero
	// means 100 ms, or Target if that is longer. Permitted: 0, or 1 ms or more.
	Interval time.Duration
	// Target is how long a request waits in a standing queue: when requests of the same priority
	// have been waiting for a whole Interval, or one was rejected in the last Interval. As soon
	// as one has then waited for Target, the last of this priority is rejected, which may be
	// another one. Zero means 5 ms. Permitted: 0, or 1 ms or more, up to Interval.
	Target time.Duration
	// MaxQueue is how many requests may wait. If one more comes, the last in the order is
	// rejected. Zero means ten times Max.
	MaxQueue int
	// Skip exempts a request, such as a health check: it takes no place.
	Skip func(*http.Request) bool
}

// Shedder is a middleware for load shedding: it bounds how many requests are worked on at once.
// Other requests wait for a place for a short time. When they wait too long, some are rejected
// with 429 and the code overloaded, so that the service responds to the rest in time. The Shedder
// decides by the time that requests wait, so Max need only be about right.
//
// A higher priority goes before a lower one. Within a priority, callers (see [Caller]) have equal
// shares: the caller with the fewest places goes first, and then the caller that was admitted
// longest ago. Between requests that are equal in both, the oldest goes first while there is a
// queue only now and then, so that a burst is served in order. In a standing queue the newest
// goes first, since the client of an old request may have given up.
//
// Put a Shedder inside the middlewares that reject, so that no request waits for a 401, and
// inside Auth, which knows the plan. An [InFlight] outside of Auth bounds what is held in memory,
// and a Shedder what is worked on.
//
// All handlers that a Shedder wraps share its places. It is safe for concurrent use.
type Shedder struct {
	c     ShedderConfig
	gate  *gate.Gate
	start time.Time
	seed  maphash.Seed
	made  made

	priorities map[string]int // of plans
	unknown    firsts         // keys whose plan is not known
}

// ShedderStats are the figures of a Shedder.
type ShedderStats struct {
	Running, Waiting, Max int    // requests now; Running may exceed Max after a place was lent
	Admitted, Shed        uint64 // requests so far; one whose client left while it waited is in neither
}

// NewShedder returns a Shedder. The error has every problem of the configuration; the Shedder
// returned with it cannot serve.
func NewShedder(c ShedderConfig) (*Shedder, error) {
	var f faults
	if c.Max < 1 {
		f.add("ShedderConfig.Max", "is %d; it needs at least 1", c.Max)
	}
	if c.Plans != nil {
		f.value("ShedderConfig.Plans", c.Plans)
	}
	if c.Plans != nil && c.Priority != nil {
		f.add("ShedderConfig.Priority", "is set together with Plans, which does the same; leave out one of them")
	}
	if c.MaxQueue < 0 {
		f.add("ShedderConfig.MaxQueue", "is %d; it is a number of requests, or 0 for ten times Max", c.MaxQueue)
	}
	if c.Target < 0 {
		f.add("ShedderConfig.Target", "is %v; it is a time to wait, or 0 for %v", c.Target, shedTarget)
	}
	if c.Interval < 0 {
		f.add("ShedderConfig.Interval", "is %v; it is a time to wait, or 0 for %v", c.Interval, shedInterval)
	}
	f.time("ShedderConfig.Target", c.Target)
	f.time("ShedderConfig.Interval", c.Interval)
	if c.Target == 0 {
		c.Target = shedTarget
	}
	if c.Interval == 0 {
		c.Interval = max(shedInterval, c.Target)
	}
	if c.Target > c.Interval {
		f.add("ShedderConfig.Target", "is %v, but Interval is %v; Target must not be longer", c.Target, c.Interval)
	}
	if err := f.err(); err != nil {
		return &Shedder{made: made{err: err}}, err
	}
	if c.MaxQueue == 0 {
		c.MaxQueue = 10 * min(c.Max, math.MaxInt/10)
	}
	s := &Shedder{c: c, start: time.Now(), seed: maphash.MakeSeed(), made: made{ok: true}}
	s.gate = gate.New(gate.Config{
		Places: c.Max, Queue: c.MaxQueue, Target: c.Target, Interval: c.Interval,
		Now: func() time.Duration { return time.Since(s.start) },
	})
	if c.Plans != nil {
		s.priorities = make(map[string]int)
		for i, plan := range c.Plans.plans {
			s.priorities[plan.Name] = i + 1
		}
	}
	return s, nil
}

const (
	shedTarget   = 5 * time.Millisecond
	shedInterval = 100 * time.Millisecond
	// longestRetry bounds Retry-After. The load of the last second says little about the load in
	// a minute.
	longestRetry = time.Minute
)

// shedding says that there is a Shedder, so that a Limiter may have to give a cost back.
var shedding atomic.Bool

func (s *Shedder) fault() error {
	if s == nil {
		return (*made)(nil).fault("Shedder")
	}
	return s.made.fault("Shedder")
}

// Wrap returns a handler that passes a request to next once it has a place. The request keeps the
// place until next returns, the connection is hijacked, or [ReleasePlace] is called. A Timeout
// inside keeps the place as long as a late handler runs. A request that is inside another Wrap of
// s, and has its place there, passes.
//
// While a handler waits for its client longer than Target, in a Read or Close of the body or a
// Write of the response, the place is lent to other requests, so that slow clients do not keep
// others from being served. The same holds while an error is written to a client that is still sending. When
// the client goes on, the request takes a place again, even beyond Max.
//
// If a Limiter outside has counted a rejected request by Key or CountBy, it gives back what the
// request has cost. What was counted by address stays counted.
func (s *Shedder) Wrap(next http.Handler) http.Handler {
	must(s.fault())
	shedding.Store(true)
	return wrap("Shedder.Wrap", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if around(r.Context(), s) || s.c.Skip != nil && s.c.Skip(r) {
			in.ServeHTTP(w, r)
			return
		}
		who, err := s.who(r)
		if err != nil {
			WriteError(w, r, err)
			return
		}
		if err := s.enter(r.Context(), who); err != nil {
			WriteError(w, r, err)
			return
		}
		st, w, inner := in.fill(w, r, slotWork)
		defer st.leave(r, inner)
		st.work.take(s)
		st.work.who, st.work.patience = who, s.c.Target
		defer st.work.release()
		if hasBody(inner) {
			u := in.bound(w, inner)
			defer u.leave()
			u.body.lends = &st.work
			w, inner = u.w, u.inner
		}
		in.ServeHTTP(w, inner)
	})
}

// Stats returns how many requests run and wait now, and how many were admitted and rejected so
// far.
func (s *Shedder) Stats() ShedderStats {
	if s.fault() != nil {
		return ShedderStats{}
	}
	g := s.gate.Stats()
	return ShedderStats{Running: g.Running, Waiting: g.Waiting, Max: s.c.Max, Admitted: g.Admitted, Shed: g.Shed}
}

// ReleasePlace gives back the place of the request in each Shedder around the handler. It is for
// a handler that has done its work and goes on as a stream that mostly waits. The request keeps
// its place in an InFlight. Outside of a Shedder, and when it is called again, ReleasePlace does
// nothing. It is safe for concurrent use.
func ReleasePlace(r *http.Request) {
	for s := find(r.Context(), slotWork); s != nil; s = s.outer {
		if s.filled&slotWork != 0 {
			s.work.giveUp()
		}
	}
}

// who returns the caller and its priority. The error is for a request whose key cannot be used.
func (s *Shedder) who(r *http.Request) (gate.Who, *Error) {
	id, err := identified(r)
	if err != nil {
		return gate.Who{}, err
	}
	var who gate.Who
	switch {
	case s.c.Priority != nil:
		who.Priority = s.c.Priority(r)
	case s.c.Plans != nil && id != nil && id.key.Plan != "":
		priority, known := s.priorities[id.key.Plan]
		if !known && s.unknown.first(id.key.ID+" "+id.key.Plan) {
			errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: a key has a plan that is not known here, and waits last in the Shedder",
				slog.String("admit.key.id", id.key.ID), slog.String("admit.plan", id.key.Plan))
		}
		who.Priority = priority
	}
	// A caller with two priorities is two callers for the gate.
	var buf [128]byte
	b := binary.LittleEndian.AppendUint64(buf[:0], uint64(who.Priority))
	who.Caller = maphash.Bytes(s.seed, appendCaller(b, r, "", nil))
	return who, nil
}

// enter takes a place, for which it may wait. The error is the refusal, or that of ctx.
func (s *Shedder) enter(ctx context.Context, who gate.Who) error {
	waiter := s.gate.Enter(who)
	if waiter == nil {
		return nil
	}
	defer noteWaited(ctx, time.Now())
	patience := time.NewTimer(waiter.Patience)
	defer patience.Stop()
	for waits := true; waits; {
		select {
		case <-waiter.Decided:
			waits = false
		case <-ctx.Done():
			waits = false
		case <-patience.C:
			patience.Reset(s.gate.Impatient(waiter))
		}
	}
	gone := ctx.Err()
	admitted := s.gate.Settle(waiter)
	switch {
	case gone != nil && admitted:
		s.gate.Leave(who) // the client has left, and does not need the place
		return gone
	case gone != nil:
		return gone
	case admitted:
		return nil
	}
	noteShed(ctx)
	return s.refusal()
}

// refusal returns the error with a random Retry-After. It spreads clients over twice the time
// that the places need for the requests that are rejected in a second, so that they come back as
// half of what the places can do. This time is at least two seconds, since nobody knows yet how
// long it is when a burst begins. If it is longer than longestRetry, clients come back over all
// of longestRetry, not at its end.
func (s *Shedder) refusal() *Error {
	e := *errOverloaded
	spread := min(2*max(s.gate.Backlog(), time.Second), longestRetry-e.RetryAfter)
	e.RetryAfter += time.Duration(rand.Float64() * float64(spread))
	return &e
}

func (s *Shedder) leave(p *place)  { s.gate.Leave(p.who) }
func (s *Shedder) rejoin(p *place) { s.gate.Return(p.who) }

func (s *Shedder) answers() []Answer {
	return []Answer{answer(errOverloaded, "The service is overloaded, and other callers were admitted first.")}
}
