package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"time"
)

// client sends whole requests, over connections that it keeps.
type client struct {
	addr      string
	transport *http.Transport
}

func newClient(addr string, http2 bool) *client {
	t := &http.Transport{Protocols: new(http.Protocols), MaxIdleConnsPerHost: senders, DisableCompression: true}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetUnencryptedHTTP2(http2)
	return &client{addr, t}
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// patience is far longer than any answer may take.
const patience = 20 * time.Second

func (c *client) send(q *request) *answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := q.build(ctx, c.addr)
	if err != nil {
		return &answer{err: err}
	}
	a := &answer{sent: time.Now()}
	res, err := c.transport.RoundTrip(r)
	a.read(res, err)
	if q.taken != nil && a.err == nil && a.status == http.StatusCreated {
		q.taken()
	}
	return a
}

// build makes the request for a client.
func (q *request) build(ctx context.Context, addr string) (*http.Request, error) {
	var body io.Reader
	switch {
	case q.chunked && len(q.body) > 0:
		body = struct{ io.Reader }{bytes.NewReader(q.body)}
	case len(q.body) > 0:
		body = bytes.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, "http://"+addr+q.path, body)
	if err == nil {
		r.Header = q.header.Clone()
	}
	return r, err
}

// read takes the whole answer.
func (a *answer) read(res *http.Response, err error) {
	if a.err = err; err != nil {
		return
	}
	defer res.Body.Close()
	a.status, a.proto, a.header, a.length = res.StatusCode, res.ProtoMajor, res.Header, res.ContentLength
	a.body, a.err = io.ReadAll(res.Body)
	a.received = time.Now()
}

// text is the request as it goes over HTTP/1.1: first its header, then its body.
func (q *request) text(addr string) (head, body []byte, err error) {
	r, err := q.build(context.Background(), addr)
	if err != nil {
		return nil, nil, err
	}
	all, err := httputil.DumpRequestOut(r, true)
	if err != nil {
		return nil, nil, err
	}
	at := bytes.Index(all, []byte("\r\n\r\n")) + 4
	return all[:at], all[at:], nil
}

// wire is a connection without a client.
type wire struct {
	*net.TCPConn
	in   *bufio.Reader
	sent time.Time
}

func dial(addr string) (*wire, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &wire{conn.(*net.TCPConn), bufio.NewReader(conn), time.Now()}, nil
}

// answer reads one, which has to come in time.
func (w *wire) answer(q *request, within time.Duration) *answer {
	a := &answer{sent: w.sent}
	_ = w.SetReadDeadline(time.Now().Add(within))
	res, err := http.ReadResponse(w.in, &http.Request{Method: q.method})
	a.read(res, err)
	return a
}

// rest is all that the service says until it closes the connection, which it must in time.
func (w *wire) rest(within time.Duration) (string, error) {
	_ = w.SetReadDeadline(time.Now().Add(within))
	said, err := io.ReadAll(w.in)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return string(said), fmt.Errorf("the connection is not closed after %v", within)
	}
	return string(said), nil
}

// reset closes the connection the hard way.
func (w *wire) reset() {
	_ = w.SetLinger(0)
	_ = w.Close()
}
