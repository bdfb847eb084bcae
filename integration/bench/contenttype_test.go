package main

import (
	"bufio"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// BenchmarkContentType has JSON taken. "mime" is what one writes by hand, with
// mime.ParseMediaType.
func BenchmarkContentType(b *testing.B) { compare(b, contentTypes()) }

func contentTypes() (all []contest) {
	libs := []struct {
		name string
		wrap func(http.Handler) http.Handler
	}{
		{"admit", admit.ContentType("application/json")},
		{"chi", middleware.AllowContentType("application/json")},
		{"gorilla", func(next http.Handler) http.Handler { return handlers.ContentTypeHandler(next, "application/json") }},
		{"mime", func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
				if err != nil || t != "application/json" {
					http.Error(w, "unsupported media type", http.StatusUnsupportedMediaType)
					return
				}
				next.ServeHTTP(w, r)
			})
		}},
	}
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"bare", "application/json", 200},
		{"charset", "application/json; charset=utf-8", 200},
		{"415", "text/xml", 415},
		{"415-arrived", "text/xml", 415},
	} {
		work := contest{name: "case=" + c.name}
		post := requests("POST", "{}", "Content-Type", c.value)
		if c.name == "415-arrived" {
			post = arrived("POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: " + c.value + "\r\nContent-Length: 2\r\n\r\n{}")
		}
		for _, l := range libs {
			h := l.wrap(nothing)
			work.entries = append(work.entries, entry{l.name, func(v *verdict) {
				if c.status == 200 {
					v.ask(h, post(), 200, c.value)
					v.notes415(h, "a body in UTF-16", requests("POST", "{}", "Content-Type", "application/json; charset=utf-16"))
					v.notes415(h, "a type that does not parse", requests("POST", "{}", "Content-Type", "application/json; charset"))
					v.notes415(h, "a body with DELETE", requests("DELETE", "{}", "Content-Type", "text/xml"))
					return
				}
				res := v.refusal(h, post(), 415, c.value)
				if res.Header.Get("Accept") == "" {
					v.note("does not say what it takes")
				}
				v.stalls(h, "POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: "+c.value+"\r\nContent-Length: 100\r\n\r\nthe first")
			}, serially(h, post, c.status)})
		}
		all = append(all, work)
	}
	return all
}

// arrived returns a maker of requests as a server reads them, with its own body, which is read
// where it has arrived already.
func arrived(text string) func() *http.Request {
	return func() *http.Request { return must(http.ReadRequest(bufio.NewReader(strings.NewReader(text)))) }
}

// stalls sends a part of a request to a server, which has to refuse it without the rest.
func (v *verdict) stalls(h http.Handler, part string) {
	server := httptest.NewServer(h)
	defer server.Close()
	conn := must(net.Dial("tcp", server.Listener.Addr().String()))
	defer conn.Close()
	_, err := io.WriteString(conn, part)
	require.NoError(v, err)
	require.NoError(v, conn.SetReadDeadline(time.Now().Add(2*time.Second)))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		v.wrong("does not answer while the upload stalls")
	}
}

func (v *verdict) notes415(h http.Handler, what string, newRequest func() *http.Request) {
	w := newDiscard()
	if h.ServeHTTP(w, newRequest()); w.status != 415 {
		v.note("takes %s", what)
	}
}
