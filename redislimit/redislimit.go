// Package redislimit keeps rate limits in Redis or Valkey, so that all replicas of a
// service share them. It does not depend on a Redis client: New takes a function that
// evaluates Script with the client of the service.
package redislimit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/breaker"
	"github.com/admit-go/admit/internal/lists"
)

// Config configures New. The zero value is ready to use.
type Config struct {
	// Timeout is how long a call may take, whatever the timeouts of the client are. Calls that
	// begin at nearly the same time share a deadline, so a call may get up to a sixteenth less.
	// Use at least twice the round trip. A Limiter waits for at most 400 ms. Default: 50 ms.
	Timeout time.Duration
	// Failures is the number of consecutive failed calls after which the Store stops calling
	// Redis. Default: 5.
	Failures int
	// ProbeEvery is how often the Store then probes Redis, without making a request wait. A
	// probe may take 3 s and writes a key. Default: 1 s.
	ProbeEvery time.Duration
	// Direct says that eval returns as soon as its context is done, whatever happens to the
	// network. Then a call needs no goroutine of its own, which saves about a tenth of the
	// time. Clients have options for it: see the examples.
	Direct bool
	// MaxRefusals is how many rejected callers are remembered, at about 200 bytes each, so that
	// Redis is not asked about them again. Default: 50,000. Negative: none.
	MaxRefusals int
}

// Eval evaluates Script, or the script of its SHA-1 digest, on the server that has the keys.
// It returns the result of the script, a []any of int64. All keys are in one slot of a
// cluster, and every argument is a string.
//
// An Eval must not modify or keep its arguments. It must not repeat a call whose reply was
// lost, since the call may have counted: with go-redis, set MaxRetries to -1. There also set
// DialerRetries to 1, so that a server that refuses connections is an error at once.
type Eval = func(ctx context.Context, keys []string, args ...any) (any, error)

// Store is an admit.LimitStore that keeps its buckets in Redis 6.2 or later, or in Valkey.
// One call of Script decides all limits of a request, by the clock of the server. A caller
// that was rejected is rejected again without a call until its RetryAfter is over, or until
// this Store gives something back to it. A Store is safe for concurrent use, and has nothing
// to close.
//
// A user of Redis with an ACL needs ~admit:* +eval +evalsha +time +get +set +del, and what its
// client sends to connect, such as +hello +client +ping.
type Store struct {
	eval     Eval
	timeout  time.Duration
	direct   bool
	epoch    time.Time
	plans    lists.Cache[admit.Limit, *plan]
	probe    *plan
	refusals refusals
	breaker  breaker.Breaker
	deadline atomic.Pointer[deadline] // the latest

	calls, failures atomic.Uint64 // so far
}

const (
	defaultTimeout     = 50 * time.Millisecond
	defaultFailures    = 5
	defaultProbeEvery  = time.Second
	defaultMaxRefusals = 50_000

	// probeTimeout is enough to connect with TLS to a server that is far away, and to send it
	// the script. Each of the maxProbes leaves a connection for requests.
	probeTimeout = 3 * time.Second
	probeTries   = 3
	maxProbes    = 16
)

// New returns a Store. It does not call Redis, so a service starts without it. The error joins
// every problem of the configuration, each an *admit.ConfigError.
func New(eval Eval, c Config) (*Store, error) {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &admit.ConfigError{Field: "redislimit." + field, Reason: fmt.Sprintf(format, args...)})
	}
	if eval == nil {
		fault("New", "has no eval; give a function that evaluates Script")
	}
	checkTime := func(field string, d, byDefault time.Duration) {
		switch {
		case d < 0:
			fault(field, "is %v; give a positive duration, or 0 for %v", d, byDefault)
		case d > 0 && d < time.Millisecond:
			fault(field, "is %v; a number alone is nanoseconds: give it a unit, such as 100*time.Millisecond, or write 0 for %v", d, byDefault)
		}
	}
	checkTime("Config.Timeout", c.Timeout, defaultTimeout)
	checkTime("Config.ProbeEvery", c.ProbeEvery, defaultProbeEvery)
	if c.Failures < 0 {
		fault("Config.Failures", "is %d; give a positive number of calls, or 0 for %d", c.Failures, defaultFailures)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	s := &Store{eval: eval, timeout: orDefault(c.Timeout, defaultTimeout), direct: c.Direct, epoch: time.Now()}
	s.probe = newProbe()
	s.breaker.Failures = int32(min(orDefault(c.Failures, defaultFailures), 1<<30))
	s.breaker.ProbeEvery = orDefault(c.ProbeEvery, defaultProbeEvery)
	s.refusals.most = max(orDefault(c.MaxRefusals, defaultMaxRefusals), 0)
	return s, nil
}

func orDefault[T int | time.Duration](v, byDefault T) T {
	if v == 0 {
		return byDefault
	}
	return v
}

// Take implements admit.LimitStore. An error is an outage, unless ctx is done or the limits
// are not valid. Take returns within the Timeout, and at once after the last calls have failed.
func (s *Store) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	p, err := s.plans.Get(limits, newPlan)
	if err != nil {
		return admit.Decision{}, fmt.Errorf("redislimit: %w", err)
	}
	// For a request that Redis admits, the clock is read once and the refusals are locked once.
	id, now := callerOf(key), s.now()
	r, known, age := s.refusals.find(id, now)
	if known && r.plan == p && cost > 0 && !p.never(cost) {
		if d := p.decide(r.answer, now-r.at, cost); !d.Allowed {
			return d, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return admit.Decision{}, fmt.Errorf("redislimit: %w", err)
	}
	if err := s.available(id, now); err != nil {
		return admit.Decision{}, err
	}

	s.calls.Add(1)
	a, err := s.ask(ctx, s.bound(ctx, now), id, p, cost)
	if err != nil {
		if ctx.Err() == nil {
			s.failed(id, err, now)
		}
		return admit.Decision{}, fmt.Errorf("redislimit: %w", err)
	}
	if a.admitted && cost != 0 { // else the script may have written nothing, which works on a read-only server too
		s.breaker.Worked()
	}
	d := p.decide(a, 0, cost)
	switch {
	case !d.Allowed && d.RetryAfter > 0:
		s.refusals.remember(id, refusal{p, a, s.now(), d.RetryAfter}, age)
	case d.Allowed && (cost < 0 || cost > 0 && known):
		s.refusals.forget(id)
	}
	return d, nil
}

// MaxWait returns how long Take waits at most: see Config.Timeout and admit.LimitStore.
func (s *Store) MaxWait() time.Duration { return s.timeout }

func (s *Store) now() time.Duration { return time.Since(s.epoch) }

// available returns an error while the Store does not call Redis. It sends a probe when it is
// time for one.
func (s *Store) available(id caller, now time.Duration) error {
	cause, probe := s.breaker.Check(now)
	if probe {
		go s.sendProbe(id)
	}
	if cause != nil {
		return fmt.Errorf("redislimit: Redis is not asked, since the last calls have failed: %w", cause)
	}
	return nil
}

// failed records a call that has failed. If it was late, a probe goes out at once, without
// making a request wait: connecting may take longer than a request waits, and a client needs
// a connection for each of several requests at the same time.
func (s *Store) failed(id caller, err error, began time.Duration) {
	s.failures.Add(1)
	now := s.now()
	s.breaker.Failed(err, now)
	if now-began > s.timeout/2 && s.breaker.Probe(maxProbes) {
		go s.sendProbe(id)
	}
}

// sendProbe writes a key next to the buckets of a caller, which does not wait for it. The
// write has to finish in the time that a request has. If it was late, it is tried again: that
// tells a connection that was slow to open from a Redis that is slow to reply.
func (s *Store) sendProbe(id caller) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	err := errSlow
	for range probeTries {
		began := s.now()
		if _, failed := s.ask(ctx, ctx, id, s.probe, 1); failed != nil {
			err = failed
			break
		}
		if s.now()-began <= s.timeout {
			err = nil
			break
		}
	}
	s.breaker.Probed(err, s.now())
}

var errSlow = errors.New("the reply of Redis came later than a request waits")

// deadline is a context for all calls that begin within a short time. They share one timer,
// since a timer for each call costs more than reading the clock.
type deadline struct {
	context.Context
	until time.Duration // for calls that begin before
}

// bounded is the context of one call. It ends with the deadline, and has the values of the
// request, for Redis clients that trace. A canceled request does not cancel the call, since
// many Redis clients would close the connection.
type bounded struct {
	*deadline
	request context.Context
}

// Value implements context.Context. The values of the deadline, which package context uses to
// cancel, come first.
func (b *bounded) Value(key any) any {
	if v := b.deadline.Value(key); v != nil {
		return v
	}
	return b.request.Value(key)
}

func (s *Store) bound(request context.Context, now time.Duration) context.Context {
	d := s.deadline.Load()
	if d == nil || now >= d.until {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		_ = cancel // unused: the shared context ends by its timeout
		d = &deadline{ctx, now + s.timeout/16}
		s.deadline.Store(d)
	}
	return &bounded{d, request}
}

// ask evaluates the script with the context bounded. It returns when bounded or ctx is done, in
// a Store that is Direct when eval returns.
func (s *Store) ask(ctx, bounded context.Context, id caller, p *plan, cost int) (answer, error) {
	if s.direct {
		return s.call(bounded, id, p, cost)
	}
	type outcome struct {
		answer answer
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		a, err := s.call(bounded, id, p, cost)
		done <- outcome{a, err}
	}()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-bounded.Done():
	case <-ctx.Done():
	}
	select {
	case o := <-done:
		return o.answer, o.err
	default:
	}
	if err := ctx.Err(); err != nil {
		return answer{}, err
	}
	return answer{}, fmt.Errorf("no reply from Redis in %v: %w", s.timeout, bounded.Err())
}

func (s *Store) call(ctx context.Context, id caller, p *plan, cost int) (a answer, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the client panicked: %v", v)
		}
	}()
	reply, err := s.eval(ctx, p.keys(id), p.args(cost)...)
	if err != nil {
		return answer{}, fmt.Errorf("evaluate the script: %w", err)
	}
	return p.parse(reply)
}

// caller is a hash of a key: it is short, and the key cannot be read from it.
type caller [16]byte

func callerOf(key string) caller {
	sum := sha256.Sum256([]byte(key))
	return caller(sum[:16])
}

const keyStartLen = len("admit:{") + 22 + len("}:")

// appendTo appends the prefix of the keys of a caller. The braces put all of them into one
// slot of a cluster.
func (c caller) appendTo(b []byte) []byte {
	b = append(b, "admit:{"...)
	b = base64.RawURLEncoding.AppendEncode(b, c[:])
	return append(b, "}:"...)
}
