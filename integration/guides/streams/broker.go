package streams

import "sync"

type price struct {
	id   int
	text string
}

// broker hands each price to everybody who has subscribed.
type broker struct {
	mu   sync.Mutex
	last int
	all  map[chan price]bool
}

func (b *broker) subscribe() (prices <-chan price, cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan price, 16)
	if b.all == nil {
		b.all = map[chan price]bool{}
	}
	b.all[c] = true
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.all, c)
	}
}

// publish leaves out whoever is 16 prices behind.
func (b *broker) publish(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	for c := range b.all {
		select {
		case c <- price{b.last, text}:
		default:
		}
	}
}
