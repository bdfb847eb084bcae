package admit

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxFailingAddresses and maxFailingNetworks bound the memory of a throttle. Addresses
	// beyond the first share the bucket of a wider network: a /16 of IPv4, or a /32 of IPv6, the
	// smallest that a registry allocates. So a flood from many addresses throttles the networks
	// that it comes from.
	maxFailingAddresses = 100_000
	maxFailingNetworks  = 2 << 16
	wide4, wide6        = 16, 32
)

// failures throttles addresses that send unknown keys. It protects a store that is asked over
// the network, and decides nothing else: a key that the store has in memory is not throttled.
//
// A look-up is paid for before it is made, and the price is given back unless the key is
// unknown: otherwise all look-ups that start at the same time would pass. A request that cannot
// pay while look-ups of its address are under way waits for them to end, since one of them may
// find a good key. Requests that come meanwhile wait as well, or the look-ups might never end.
// The wait is as long as a store may take.
type failures struct {
	addresses, networks *MemoryStore
	rules               []rule
	known               func(Digest) bool

	mu      sync.Mutex
	guesses map[netip.Prefix]*guesses // the networks of look-ups under way
}

// guesses are the look-ups of one network that are under way.
type guesses struct {
	paid   int
	waited bool          // a request waits for them: new requests wait too
	turn   chan struct{} // hands the payment of one of them to a request that waits
	ended  chan struct{} // closed when none is under way any more
}

// newFailures returns nil for the zero Limit.
func newFailures(store KeyStore, l Limit) (*failures, error) {
	if l == (Limit{}) {
		return nil, nil
	}
	r, err := newRule(l)
	if err != nil {
		return nil, err
	}
	f := &failures{rules: []rule{r}, known: func(Digest) bool { return false }, guesses: map[netip.Prefix]*guesses{}}
	for memory, most := range map[**MemoryStore]int{&f.addresses: maxFailingAddresses, &f.networks: maxFailingNetworks} {
		*memory, _ = NewMemoryStore(MemoryStoreConfig{MaxKeys: most * keyedShare / (keyedShare - 1)}) // none has a Key
	}
	if s, ok := store.(KeyKnower); ok {
		f.known = s.Knows
	}
	return f, nil
}

// payment is the bucket from which the price of a look-up was taken.
type payment struct {
	network netip.Prefix
	memory  *MemoryStore // nil: nothing was taken
	id      fingerprint
}

// of returns the bucket from which an address pays.
func (f *failures) of(addr netip.Addr) payment {
	p := payment{network: netip.PrefixFrom(addr, addr.BitLen()), memory: f.addresses}
	p.id = fingerprintOf(p.memory, addr)
	if !p.memory.roomFor(unkeyed, p.id, f.rules[0].id) {
		width := wide4
		if addr.Is6() {
			width = wide6
		}
		p.network, _ = addr.Prefix(width)
		p.memory = f.networks
		p.id = fingerprintOf(p.memory, p.network.Addr())
	}
	return p
}

func fingerprintOf(s *MemoryStore, addr netip.Addr) fingerprint {
	var buf [64]byte
	return s.seeds.fingerprint(addr.AppendTo(buf[:0]))
}

func (f *failures) take(p payment, cost int) Decision {
	return p.memory.take(make([]LimitState, 0, 1), unkeyed, p.id, cost, f.rules)
}

// pay pays for a look-up, after which the caller must call settle, or returns the rejection.
func (f *failures) pay(ctx context.Context, addr netip.Addr, d Digest) (payment, *Error) {
	if f.known(d) {
		return payment{}, nil
	}
	p, g, refusal := f.enter(addr, false)
	if g == nil {
		return p, refusal
	}
	patience := time.NewTimer(keyFlightTime)
	defer patience.Stop()
	select {
	case <-g.turn:
		return p, nil
	case <-g.ended:
	case <-patience.C:
		f.mu.Lock()
		g.waited = false // a look-up that never ends must not keep others out forever
		f.mu.Unlock()
		return payment{}, errStoreUnavailable.WithCause(errTooManyFlights)
	case <-ctx.Done():
		return payment{}, errStoreUnavailable.WithCause(ctx.Err())
	}
	if f.known(d) {
		return payment{}, nil
	}
	p, _, refusal = f.enter(addr, true)
	return p, refusal
}

// enter pays, or returns look-ups under way to wait for. A request that has waited, or finds
// none under way, gets the rejection.
func (f *failures) enter(addr netip.Addr, waited bool) (payment, *guesses, *Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.of(addr)
	g := f.guesses[p.network]
	if g != nil && g.waited && !waited {
		return p, g, nil
	}
	switch decision := f.take(p, 1); {
	case decision.Allowed && g == nil:
		f.guesses[p.network] = &guesses{paid: 1, turn: make(chan struct{}), ended: make(chan struct{})}
		return p, nil, nil
	case decision.Allowed:
		g.paid++
		return p, nil, nil
	case g == nil || waited:
		e := *errKeyThrottled
		e.RetryAfter = max(decision.RetryAfter, time.Second)
		return payment{}, nil, &e
	}
	g.waited = true
	return p, g, nil
}

// settle ends a look-up. An unknown key is paid for. The price of any other look-up goes to a
// request that waits for it, or back to the bucket.
func (f *failures) settle(p payment, unknown bool) {
	if p.memory == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.guesses[p.network]
	if !unknown {
		select {
		case g.turn <- struct{}{}:
			return
		default:
			f.take(p, -1)
		}
	}
	if g.paid--; g.paid == 0 {
		delete(f.guesses, p.network)
		close(g.ended)
	}
}

var errKeyThrottled = &Error{
	Status:  http.StatusTooManyRequests,
	Code:    "key_throttled",
	Message: "Too many API keys that are not valid came from this address, so this one was not checked. Try again later.",
}
