package admit

import (
	"net/http"
	"net/netip"
	"time"
)

// maxFailingAddresses bounds the memory of a throttle at about 13 MB. Addresses beyond
// it share buckets.
const maxFailingAddresses = 100_000

// failures throttles the addresses that send keys which nobody has. It stands between
// strangers and a store that has to be asked over the network, and decides nothing
// else: what the store knows without being asked is none of its business.
type failures struct {
	memory *MemoryStore
	rules  []rule
	known  func(Digest) bool
}

// newFailures returns nil for a throttle that is not configured.
func newFailures(store KeyStore, l Limit) (*failures, error) {
	if l == (Limit{}) {
		return nil, nil
	}
	r, err := newRule(l)
	if err != nil {
		return nil, err
	}
	memory, err := NewMemoryStore(MemoryStoreConfig{MaxKeys: maxFailingAddresses})
	if err != nil {
		return nil, err
	}
	f := &failures{memory: memory, rules: []rule{r}, known: func(Digest) bool { return false }}
	if s, ok := store.(KeyKnower); ok {
		f.known = s.Knows
	}
	return f, nil
}

// refuse returns the error for a look-up that may not be made. What may be made costs
// nothing yet: only a failure does. What may not costs nothing either.
func (f *failures) refuse(network netip.Addr) *Error {
	if d := f.take(network, 0); d.States[0].Remaining > 0 {
		return nil
	}
	d := f.take(network, 1) // to learn when to come again
	if d.Allowed {
		return nil
	}
	e := *errTooManyFailures
	e.RetryAfter = max(d.RetryAfter, time.Second)
	return &e
}

func (f *failures) note(network netip.Addr) { f.take(network, 1) }

func (f *failures) take(network netip.Addr, cost int) Decision {
	var buf [64]byte
	b := network.AppendTo(append(buf[:0], addrPrefix...))
	return f.memory.take(make([]LimitState, 0, 1), unkeyed, f.memory.fingerprint(b), cost, f.rules)
}

var errTooManyFailures = &Error{
	Status:  http.StatusTooManyRequests,
	Code:    "rate_limited",
	Message: "Too many API keys that are not valid came from this address. Try again later.",
}
