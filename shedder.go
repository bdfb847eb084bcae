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

// ShedderConfig configures NewShedder, which refuses with 429 overloaded. Only Max is
// required.
type ShedderConfig struct {
	// Max is how many requests may be worked on at once. Twice as many as the service can work
	// on is a good start: too few leave it idle while requests are refused, and with too many
	// they wait inside, where nobody refuses them. That costs latency alone, as long as what
	// waits inside is done before its clients give up.
	Max int
	// Plans says who goes first: callers of a later plan before those of an earlier one, who
	// go before those with no plan, or one that is none of them.
	Plans *Plans
	// Priority says it instead of Plans: the higher goes first. Nil, without Plans: all are
	// equal.
	Priority func(*http.Request) int
	// Interval is how long a request waits for a place at most: a burst that is over by then
	// costs nobody anything. Choose it as long as most requests take, or longer. 0: 100 ms.
	Interval time.Duration
	// Target is how long requests wait where some of the same priority have been waiting for
	// a whole Interval, or one was refused in the last one: as soon as one has waited for
	// Target, one is refused: the last of the order, which may be another. 0: 5 ms.
	Target time.Duration
	// MaxQueue is how many may wait. Who comes on top takes the wait of who would be the last
	// to go in. 0: ten times Max.
	MaxQueue int
	// Skip exempts a request, such as a health check: it takes no place.
	Skip func(*http.Request) bool
}

// Shedder bounds how many requests are worked on at once. Others wait for a place for a short
// time, and when they wait for too long some are refused, so that the rest is answered in
// time. It decides by the wait, so that Max need only be about right.
//
// A higher priority goes before a lower one. Within a priority the callers, as by Caller,
// have equal shares: who has the fewest places goes first, then who was let in the longest
// ago. Of requests that are equal in that, the oldest goes first while there is a queue now
// and then, so that a burst is served in its order. In a queue that stands it is the newest:
// the client of an old one may have given up.
//
// A Shedder stands inside all that refuses, so that nobody waits for a 401, and inside Auth,
// which knows the plan. An InFlight is the bound before that: on what is held in memory,
// where a Shedder bounds what is worked on.
//
// It is safe for concurrent use; all handlers that it wraps share its places.
type Shedder struct {
	c     ShedderConfig
	gate  *gate.Gate
	start time.Time
	seed  maphash.Seed
	made  made

	priorities map[string]int // of plans
	unknown    firsts         // keys whose plan nobody knows
}

// ShedderStats says how a Shedder does.
type ShedderStats struct {
	Running, Waiting, Max int    // requests, now
	Admitted, Shed        uint64 // requests so far; who leaves while it waits is neither
}

// NewShedder returns a Shedder. The error has every fault of the configuration; the Shedder
// that comes with it cannot serve.
func NewShedder(c ShedderConfig) (*Shedder, error) {
	var f faults
	if c.Max < 1 {
		f.add("ShedderConfig.Max", "is %d; it needs at least 1", c.Max)
	}
	if c.Plans != nil {
		f.value("ShedderConfig.Plans", c.Plans)
	}
	if c.Plans != nil && c.Priority != nil {
		f.add("ShedderConfig.Priority", "is there beside Plans, which says the same; leave out one of them")
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
		f.add("ShedderConfig.Target", "is %v, but Interval is %v; a request waits for less in a queue that stands", c.Target, c.Interval)
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
	// longestRetry bounds Retry-After. What was too much in the last second says little of
	// what will be in a minute.
	longestRetry = time.Minute
)

// shedding says that there is a Shedder, so that a Limiter may have to give something back.
var shedding atomic.Bool

func (s *Shedder) fault() error {
	if s == nil {
		return (*made)(nil).fault("Shedder")
	}
	return s.made.fault("Shedder")
}

// Wrap lets a request to next in once it has a place, and keeps it there until next returns,
// the connection is hijacked, or ReleasePlace is called. A Timeout inside keeps it for as long
// as the handler that has overrun still runs. A request that is inside of s already, and has
// its place there, passes.
//
// While a handler waits for its client, in a Read of the body or a Write of the answer, for
// longer than Target, and while an error is written to a client that still sends, the place is
// lent to others: slow clients take none from those who want work to be done. The request
// takes it again when the client goes on, then even beyond Max.
//
// A Limiter outside gives back what a request has cost that is refused here, if it was
// counted by Key or CountBy. What was counted by address stays counted.
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

// Stats returns how many requests run and wait, and how many there have been.
func (s *Shedder) Stats() ShedderStats {
	if s.fault() != nil {
		return ShedderStats{}
	}
	g := s.gate.Stats()
	return ShedderStats{Running: g.Running, Waiting: g.Waiting, Max: s.c.Max, Admitted: g.Admitted, Shed: g.Shed}
}

// ReleasePlace gives back the place that the request has in each Shedder around the caller:
// for a handler that has done its work, and goes on as a stream that mostly waits. Calling it
// again, or outside of a Shedder, does nothing. It may be called by any goroutine. The request
// keeps its place in an InFlight.
func ReleasePlace(r *http.Request) {
	for s := find(r.Context(), slotWork); s != nil; s = s.outer {
		if s.filled&slotWork != 0 {
			s.work.giveUp()
		}
	}
}

// who returns the caller and its priority. The error is the answer to a request whose key
// cannot be used.
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
			errorWriterOf(r.Context()).log(r, slog.LevelWarn, "admit: a key has a plan that is not known here, and goes last",
				slog.String("key", id.key.ID), slog.String("plan", id.key.Plan))
		}
		who.Priority = priority
	}
	// One that comes with two priorities is two for the gate.
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
		s.gate.Leave(who) // nobody is there any more to use the place
		return gone
	case gone != nil:
		return gone
	case admitted:
		return nil
	}
	noteShed(ctx)
	return s.refusal()
}

// refusal tells clients to come back over twice the time that the places need for as many
// as are refused in a second: so what was a burst is half of what they can do. It is two
// seconds at least, since nobody knows yet how long that is when a burst begins; if it is
// longer than longestRetry, they come back over all of that, not at its end.
func (s *Shedder) refusal() *Error {
	e := *errOverloaded
	spread := min(2*max(s.gate.Backlog(), time.Second), longestRetry-e.RetryAfter)
	e.RetryAfter += time.Duration(rand.Float64() * float64(spread))
	return &e
}

func (s *Shedder) leave(p *place)  { s.gate.Leave(p.who) }
func (s *Shedder) rejoin(p *place) { s.gate.Return(p.who) }

func (s *Shedder) answers() []Answer {
	return []Answer{answer(errOverloaded, "The service has more to do than it can, and others were let in before this caller.")}
}
