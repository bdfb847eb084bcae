package admit

import (
	"net/netip"
	"sync/atomic"
)

// place is what one request holds in an InFlight. It is given back when nothing holds it
// any more: not the wrapper itself, nor a handler that goes on after its Timeout. Once it
// has been given back it stays so, whoever asks for it.
type place struct {
	of    places
	from  netip.Addr
	holds atomic.Int32
	own   atomic.Bool // the wrapper itself holds it
}

// places is an InFlight.
type places interface {
	leave(from netip.Addr)
}

// take is called once, for the wrapper.
func (p *place) take(of places, from netip.Addr) {
	p.of, p.from = of, from
	p.own.Store(true)
	p.holds.Store(1)
}

// giveBack ends the hold of the wrapper.
func (p *place) giveBack() {
	if p.own.CompareAndSwap(true, false) {
		p.release()
	}
}

// hold keeps the place until release, unless it has been given back.
func (p *place) hold() bool {
	for {
		n := p.holds.Load()
		if n == 0 {
			return false
		}
		if p.holds.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (p *place) release() {
	if p.holds.Add(-1) == 0 {
		p.of.leave(p.from)
	}
}
