package servers

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Proxy is a TCP proxy on 127.0.0.1 that fails as it is told.
type Proxy struct {
	Addr     string
	target   string
	listener net.Listener

	mu      sync.Mutex
	weather Weather
	changed chan struct{} // closed when the weather changes
	conns   map[net.Conn]bool
}

// Weather is what happens to what goes through a Proxy.
type Weather struct {
	Delay time.Duration // of each piece, in each direction
	Hole  bool          // connections are taken, and nothing comes through
	Cut   bool          // connections end, new ones at once
}

// StartProxy starts a proxy to an address, which stops at the end of the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &Proxy{
		Addr: l.Addr().String(), target: target, listener: l,
		changed: make(chan struct{}), conns: make(map[net.Conn]bool),
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.Set(Weather{Cut: true})
		serving.Wait()
	})
	return p
}

// Set changes the weather, for connections that are there too.
func (p *Proxy) Set(w Weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
	close(p.changed)
	p.changed = make(chan struct{})
	if w.Cut {
		for conn := range p.conns {
			_ = conn.Close()
		}
	}
}

func (p *Proxy) now() (Weather, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.weather, p.changed
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.add(client) {
		return
	}
	defer p.remove(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.add(server) {
		return
	}
	defer p.remove(server)

	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(server, client) })
	pumps.Go(func() { p.pump(client, server) })
	pumps.Wait()
}

// add reports whether a connection may live.
func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return !p.weather.Cut
}

func (p *Proxy) remove(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// pump copies, and ends both connections when one ends.
func (p *Proxy) pump(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w, changed := p.now()
		for ; w.Hole; w, changed = p.now() {
			<-changed
		}
		if w.Cut {
			return
		}
		time.Sleep(w.Delay)
		if _, e := to.Write(buf[:n]); e != nil || err != nil {
			return
		}
	}
}
