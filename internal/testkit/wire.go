// Package testkit has what the tests of several packages need: servers for HTTP/1.1 and HTTP/2 with
// a guard under the handler, and clients that write requests byte by byte.
package testkit

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The protocols that handlers are tested with, since they differ in many details.
const (
	HTTP1    = "HTTP/1.1"
	HTTP1TLS = "HTTP/1.1 with TLS"
	HTTP2    = "HTTP/2"
)

// Wires are all protocols, and PlainWires those on which bytes can be written by hand.
var (
	Wires      = []string{HTTP1, HTTP1TLS, HTTP2}
	PlainWires = []string{HTTP1, HTTP1TLS}
)

// patience is how long a test waits for something that should happen at once.
const patience = 20 * time.Second

// Serve serves h with a Guard over real sockets until the test ends. The configure functions change
// the server before it starts.
func Serve(t testing.TB, wire string, h http.Handler, configure ...func(*http.Server)) *httptest.Server {
	t.Helper()
	return ServeUnguarded(t, wire, Guard(t, h), configure...)
}

// ServeUnguarded is Serve without a Guard, for handlers that are not under test, or that do on
// purpose what a handler must not.
func ServeUnguarded(t testing.TB, wire string, h http.Handler, configure ...func(*http.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	for _, f := range configure {
		f(s.Config)
	}
	switch wire {
	case HTTP1:
		s.Start()
	case HTTP1TLS:
		s.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
		s.StartTLS()
		s.Client().Transport.(*http.Transport).ForceAttemptHTTP2 = false
	case HTTP2:
		s.EnableHTTP2 = true
		s.StartTLS()
	default:
		t.Fatalf("there is no wire %q", wire)
	}
	t.Cleanup(func() { closeServer(t, s) })
	return s
}

// closeServer fails the test if a handler does not end, for example because the test has failed
// before it let the handler go on. A test that waits forever would not show what went wrong.
func closeServer(t testing.TB, s *httptest.Server) {
	closed := make(chan bool)
	go func() { defer close(closed); s.Close() }()
	select {
	case <-closed:
	case <-time.After(3 * patience):
		t.Errorf("a handler of %s has not ended", s.URL)
	}
}

// Do sends a request and reads the whole response; headers are names and values in turn.
func Do(t testing.TB, s *httptest.Server, method, path, body string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.URL+path, content)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return res, readAll(t, res)
}

// Dial opens a connection on which a test writes HTTP/1.1 by hand. It is closed when the
// test ends, and fails after 20 seconds.
func Dial(t testing.TB, s *httptest.Server) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	if s.TLS == nil {
		c, err = net.Dial("tcp", s.Listener.Addr().String())
	} else {
		c, err = tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// Answer reads one response, and its body, from a connection.
func Answer(t testing.TB, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(readAll(t, res))
}

func readAll(t testing.TB, res *http.Response) []byte {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}
