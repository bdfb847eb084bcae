package client_test

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// arrivals notes who came when, and what it was told.
type arrivals struct {
	next http.Handler
	mu   sync.Mutex
	by   map[string][]visit // by X-Client
}

type visit struct {
	at         time.Time
	status     int // 0: no answer
	retryAfter time.Duration
}

func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := visit{at: time.Now()}
	s := &statusWriter{ResponseWriter: w}
	defer func() {
		v.status = s.status
		if n, err := strconv.Atoi(w.Header().Get("Retry-After")); err == nil {
			v.retryAfter = time.Duration(n) * time.Second
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.by == nil {
			a.by = make(map[string][]visit)
		}
		who := r.Header.Get("X-Client")
		a.by[who] = append(a.by[who], v)
	}()
	a.next.ServeHTTP(s, r)
}

// statuses are what a client was answered, in order.
func (a *arrivals) statuses(who string) []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []int{}
	for _, v := range a.by[who] {
		all = append(all, v.status)
	}
	return all
}

// check fails the test if somebody came before its Retry-After, or without one after 429.
func (a *arrivals) check(t *testing.T) (refusals int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for who, visits := range a.by {
		for i, v := range visits[:len(visits)-1] {
			if v.status == 429 {
				refusals++
				assert.Positive(t, v.retryAfter)
			}
			assert.GreaterOrEqual(t, visits[i+1].at.Sub(v.at), v.retryAfter, "client %s", who)
		}
	}
	return refusals
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// pipes are the network of a server in a bubble of synctest.
type pipes struct {
	conns   chan net.Conn
	closed  chan struct{}
	dialled atomic.Int64
}

// servePipes serves h until the test ends.
func servePipes(t *testing.T, h http.Handler) *pipes {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &http.Server{Handler: h}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(p) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return p
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	server, client := net.Pipe()
	select {
	case p.conns <- server:
		p.dialled.Add(1)
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
