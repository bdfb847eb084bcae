package admit

import (
	"net/netip"
	"sync"
	"time"

	"github.com/admit-go/admit/internal/gate"
)

// place is what one request holds in an InFlight or a Shedder. The middleware holds it, and so does
// each handler that runs inside a Timeout. It is given back when nobody holds it any more. While
// all holders only wait for the client, it is lent to other requests.
type place struct {
	of   places
	from netip.Addr // in an InFlight
	who  gate.Who   // in a Shedder

	// patience is how long a Read or a Write may wait for the client before the place is lent.
	// Zero means that it is never lent for that.
	patience time.Duration

	mu      sync.Mutex
	holds   int32
	lent    int32
	awaits  int32 // Reads and Writes that are under way
	givenUp bool
	late    bool        // the place is lent because of awaits
	timer   *time.Timer // for awaits; nil: there was none
}

// places is an InFlight or a Shedder.
type places interface {
	leave(*place)  // gives a place back
	rejoin(*place) // takes a place at once, beyond the bound if necessary
}

// take is called once, by the middleware.
func (p *place) take(of places) { p.of, p.holds = of, 1 }

// hold keeps the place until release, and reports false if nobody holds it any more.
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
	if p.holds--; p.holds == 0 && p.lent == 0 && !p.givenUp {
		p.of.leave(p)
	}
}

// isOf reports whether p is a place in what that has not been given back.
func (p *place) isOf(what any) bool {
	if p.of != what {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holds > 0 && !p.givenUp
}

// giveUp gives the place back, whoever holds it.
func (p *place) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds > 0 && p.lent == 0 && !p.givenUp {
		p.of.leave(p)
	}
	p.givenUp = true
}

// lend lends the place until reclaim, if it has no more than the given holds.
func (p *place) lend(holds int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds != holds || p.givenUp {
		return false
	}
	p.lendLocked()
	return true
}

func (p *place) lendLocked() {
	if p.lent++; p.lent == 1 {
		p.of.leave(p)
	}
}

// await notes that the request waits for its client, until came.
func (p *place) await() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.awaits++; p.awaits > 1 {
		return
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(p.patience, p.expire)
	} else {
		p.timer.Reset(p.patience)
	}
}

func (p *place) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.awaits > 0 && !p.late && p.holds > 0 && !p.givenUp {
		p.late = true
		p.lendLocked()
	}
}

func (p *place) came() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.awaits--; p.awaits > 0 {
		return
	}
	p.timer.Stop()
	if p.late {
		p.late = false
		p.reclaimLocked()
	}
}

func (p *place) reclaim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reclaimLocked()
}

func (p *place) reclaimLocked() {
	if p.lent--; p.lent == 0 && p.holds > 0 && !p.givenUp {
		p.of.rejoin(p)
	}
}
