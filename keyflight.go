package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/outage"
)

const (
	maxKeyFlights = 64              // look-ups in the store at a time: fewer than a database has connections
	keptFlights   = 16              // of those, for keys that the cache has seen: unknown keys in line must not keep a revoked one in use
	keyFlightTime = 5 * time.Second // for each; a store may have a shorter deadline of its own
	maxHungKeys   = 1024            // look-ups that go on beyond that time, and have left their permit to others

	// keyPatience is how long a request waits for the look-up of a key past its TTL while the
	// stale key may be used. Once the store is known to fail or to be late, it does not wait at
	// all: the key is looked up in the background, at most once in keyRetry.
	keyPatience = 50 * time.Millisecond
	keyRetry    = time.Second
)

// keyFlight is one look-up in the store, for all requests that ask.
type keyFlight struct {
	done     chan struct{}
	deadline <-chan struct{}
	outdated bool // the digest was forgotten or asked for again since; under the lock of the shard
	key      *Key
	err      error
}

// wait returns the result, or the reason why there is none: the caller has given up, or the
// store has let the deadline pass.
func (f *keyFlight) wait(ctx context.Context) (*Key, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.deadline:
		select {
		case <-f.done:
		default:
			return nil, fmt.Errorf("KeyCache: no answer from the store in %v: %w", keyFlightTime, context.DeadlineExceeded)
		}
	}
	return f.key, f.err
}

// closed reports whether done is closed.
func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

var (
	errTooManyFlights = errors.New("admit: too many look-ups of keys are under way")
	errKeyStoreLate   = fmt.Errorf("KeyCache: no answer from the store in %v", keyPatience)
)

// ask joins the look-up of d, or starts one. Look-ups that cannot start yet wait in line, and
// leave it when they give up. So a flood has a bounded number of look-ups under way.
func (c *KeyCache) ask(ctx context.Context, sh *cacheShard, d Digest) (*Key, error) {
	sh.mu.RLock()
	f, seen := sh.underWay(d), sh.known[d] != nil
	sh.mu.RUnlock()
	if f != nil {
		return f.wait(ctx)
	}
	permit := c.permit(seen)
	if permit == nil {
		var err error
		if permit, err = c.line(ctx, seen); err != nil {
			return nil, err
		}
	}
	// Another request may have asked meanwhile.
	sh.mu.Lock()
	key, age := sh.at(d, time.Now(), 0)
	f = sh.underWay(d)
	switch {
	case age == keyFresh || age == keyUnknown || f != nil:
		<-permit
	default:
		f = c.start(ctx, sh, d, permit)
	}
	sh.mu.Unlock()
	switch {
	case age == keyFresh:
		return key, nil
	case age == keyUnknown:
		return nil, ErrKeyNotFound
	default:
		return f.wait(ctx)
	}
}

// permits is a semaphore: a send takes a permit, and a receive gives it back.
type permits chan struct{}

// permit takes a permit for the look-up of a key that the cache has seen or not, and returns
// where to give it back. It returns nil if there is none.
func (c *KeyCache) permit(seen bool) permits {
	select {
	case c.slots <- struct{}{}:
		return c.slots
	default:
	}
	select {
	case c.keptFor(seen) <- struct{}{}:
		return c.kept
	default:
		return nil
	}
}

// line waits for a permit.
func (c *KeyCache) line(ctx context.Context, seen bool) (permits, error) {
	patience := time.NewTimer(keyFlightTime)
	defer patience.Stop()
	select {
	case c.slots <- struct{}{}:
		return c.slots, nil
	case c.keptFor(seen) <- struct{}{}:
		return c.kept, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-patience.C:
		return nil, errTooManyFlights
	}
}

// keptFor returns the permits that are reserved for keys that the cache has seen, or nil.
func (c *KeyCache) keptFor(seen bool) permits {
	if seen {
		return c.kept
	}
	return nil
}

// refresh looks up a key of which a stale copy may be used, and returns the copy if the store
// fails or takes too long.
func (c *KeyCache) refresh(ctx context.Context, sh *cacheShard, d Digest) (*Key, error) {
	f := c.join(ctx, sh, d)
	if f != nil && !c.health.poor.Load() {
		patience := time.NewTimer(keyPatience)
		defer patience.Stop()
		select {
		case <-f.done:
		case <-ctx.Done():
		case <-patience.C:
			c.health.fails(errKeyStoreLate)
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case f != nil && closed(f.done) && !isOutage(f.err):
		return f.key, f.err
	}
	key, age := sh.recall(d, time.Now(), c.c.StaleFor)
	if age != keyFresh && age != keyStale {
		return c.ask(ctx, sh, d) // the key was forgotten meanwhile
	}
	c.health.outage.Without()
	return key, nil
}

// isOutage reports whether err means that the store has not answered. A *ConfigError is an
// answer: there is a key, and it cannot be used.
func isOutage(err error) bool {
	return err != nil && !errors.Is(err, ErrKeyNotFound) && !errors.As(err, new(*ConfigError))
}

// join joins the look-up of d, or starts one if there is a permit. Otherwise, and if the store
// has failed a moment ago, it returns nil.
func (c *KeyCache) join(ctx context.Context, sh *cacheShard, d Digest) *keyFlight {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if f := sh.underWay(d); f != nil {
		return f
	}
	if k := sh.known[d]; k != nil && time.Now().Before(k.retry) {
		return nil
	}
	if permit := c.permit(true); permit != nil {
		return c.start(ctx, sh, d, permit)
	}
	return nil
}

// underWay returns the look-up to wait for, or nil. A look-up that is late may never end, so it
// is not returned.
func (sh *cacheShard) underWay(d Digest) *keyFlight {
	if f := sh.flights[d]; f != nil && !closed(f.deadline) {
		return f
	}
	return nil
}

// start begins a look-up with the permit that the caller has taken.
func (c *KeyCache) start(ctx context.Context, sh *cacheShard, d Digest, permit permits) *keyFlight {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyFlightTime)
	f := &keyFlight{done: make(chan struct{}), deadline: ctx.Done()}
	if old := sh.flights[d]; old != nil {
		old.outdated = true
	}
	sh.flights[d] = f
	c.lookups.Add(1)
	go func() {
		defer cancel() // after done is closed, or a waiter would take it for the deadline
		asked := time.Now()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			c.load(ctx, d, f)
		}()
		select {
		case <-answered:
		case <-ctx.Done(): // the store ignores it
			select {
			case c.hung <- struct{}{}:
				<-permit
				permit = c.hung
			default:
			}
			<-answered
		}
		<-permit
		c.land(sh, d, f, asked)
	}()
	return f
}

// load asks the store.
func (c *KeyCache) load(ctx context.Context, d Digest, f *keyFlight) {
	f.err = errors.New("KeyCache: the store did not return") // for runtime.Goexit
	defer func() {
		if v := recover(); v != nil { // this goroutine has no Recover above it
			f.err = fmt.Errorf("KeyCache: the store panicked: %v\n%s", v, debug.Stack())
		}
	}()
	f.key, f.err = c.store.LookupKey(ctx, d)
	if f.err == nil && f.key == nil {
		f.err = ErrKeyNotFound
	}
}

// land keeps the result, unless there is a newer look-up. The result is as old as the moment at
// which the store was asked.
func (c *KeyCache) land(sh *cacheShard, d Digest, f *keyFlight, asked time.Time) {
	switch took := time.Since(asked); {
	case isOutage(f.err):
		c.health.fails(f.err)
	case took <= keyPatience:
		c.health.answers()
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	defer close(f.done)
	if f.outdated {
		return
	}
	delete(sh.flights, d)
	switch {
	case f.err == nil:
		delete(sh.unknown, d)
		c.note(sh, &cachedKey{digest: d, key: f.key, until: asked.Add(c.c.TTL)})
	case errors.Is(f.err, ErrKeyNotFound):
		c.drop(sh, d)
		sh.noteUnknown(d, asked.Add(c.c.NegativeTTL))
	case sh.known[d] == nil:
	case !isOutage(f.err):
		sh.known[d].key = nil // the old key must not come back in an outage
	default:
		sh.known[d].retry = time.Now().Add(keyRetry)
	}
}

// storeHealth is what the look-ups of a KeyCache tell about its store. The store is poor from a
// look-up that fails or is late until one is in time. A request then does not wait if it may
// use a stale key.
type storeHealth struct {
	poor   atomic.Bool
	outage outage.Outage // without counts the requests that a stale key has served
}

func (h *storeHealth) fails(err error) {
	h.poor.Store(true)
	if h.outage.Failed() {
		slog.Default().Warn("admit: the key store fails or is late; keys past their TTL are used until StaleFor is over; keys that are not cached get 503", slog.Any("error", err))
	}
}

func (h *storeHealth) answers() {
	h.poor.Store(false)
	if away, stale, tell := h.outage.Worked(); tell {
		slog.Default().Info("admit: the key store answers again", outage.Away(away), slog.Int64("stale_answers", stale))
	}
}
