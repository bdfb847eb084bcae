package admit

import (
	"net/netip"
	"sync"
)

// place is what one request holds in an InFlight. It is given back when nothing holds it
// any more: not the wrapper itself, nor a handler that goes on after its Timeout. While all
// of them wait for nothing but the client, it is lent to others.
type place struct {
	of   places
	from netip.Addr

	mu    sync.Mutex
	holds int
	lent  int
}

// places is an InFlight.
type places interface {
	leave(from netip.Addr)  // gives a place back
	rejoin(from netip.Addr) // takes one at once, beyond the bound if need be
}

// take is called once, for the wrapper.
func (p *place) take(of places, from netip.Addr) {
	p.of, p.from, p.holds = of, from, 1
}

// hold keeps the place until release, unless it has been given back.
func (p *place) hold() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds == 0 {
		return false
	}
	p.holds++
	return true
}

func (p *place) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds--; p.holds == 0 && p.lent == 0 {
		p.of.leave(p.from)
	}
}

// lend gives the place to others until reclaim, if so many holds are all there are.
func (p *place) lend(holds int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds != holds {
		return false
	}
	if p.lent++; p.lent == 1 {
		p.of.leave(p.from)
	}
	return true
}

func (p *place) reclaim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lent--; p.lent == 0 && p.holds > 0 {
		p.of.rejoin(p.from)
	}
}
