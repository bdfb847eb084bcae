// Package timeouts documents where the Timeout of admit, http.TimeoutHandler and the
// Timeout of chi differ, over real sockets. A cell that changes with a new version of
// either is a failing test here.
package timeouts_test

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

const limit = 250 * time.Millisecond

// contestants are the three wrappers, in the order of the cells below.
var contestants = []struct {
	name string
	wrap func(http.Handler) http.Handler
}{
	{"admit", func(h http.Handler) http.Handler { return admit.Recover(admit.Timeout(limit)(h)) }},
	{"http.TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, limit, "timeout") }},
	{"chi", middleware.Timeout(limit)},
}

// behaviours are a handler and a client, and what the client sees of each contestant.
var behaviours = []struct {
	name    string
	plain   bool // HTTP/1.1 only
	handler http.HandlerFunc
	client  func(t *testing.T, s *httptest.Server) string
	cells   [3]string
}{
	{
		name:    "a handler that heeds its context",
		handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		client:  answer,
		cells:   [3]string{"503 JSON", "503 text", "504 empty"},
	},
	{
		name:    "a handler that does not",
		handler: func(w http.ResponseWriter, _ *http.Request) { time.Sleep(3 * limit); _, _ = io.WriteString(w, "late") },
		client:  answer,
		cells:   [3]string{"503 JSON", "503 text", "200 text"}, // chi interrupts nothing
	},
	{
		name: "a stream, with the first part in time",
		handler: func(w http.ResponseWriter, r *http.Request) {
			for i := range 6 {
				_, _ = fmt.Fprint(w, i)
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(limit / 2):
				case <-r.Context().Done():
					return
				}
			}
		},
		client: func(t *testing.T, s *httptest.Server) string {
			switch b := body(t, s); b {
			case "012345":
				return "whole"
			case "timeout":
				return "refused"
			default:
				return "cut short"
			}
		},
		cells: [3]string{"whole", "refused", "cut short"}, // chi ends the context in the middle
	},
	{
		name: "w is an http.Flusher",
		handler: func(w http.ResponseWriter, _ *http.Request) {
			_, ok := w.(http.Flusher)
			_, _ = fmt.Fprint(w, ok)
		},
		client: body,
		cells:  [3]string{"true", "false", "true"},
	},
	{
		name:  "Hijack",
		plain: true,
		handler: func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				_, _ = io.WriteString(w, "not supported")
				return
			}
			_ = conn.Close()
		},
		client: func(t *testing.T, s *httptest.Server) string {
			res, err := s.Client().Get(s.URL)
			if err != nil {
				return "hijacked"
			}
			return text(t, res)
		},
		cells: [3]string{"hijacked", "not supported", "hijacked"},
	},
	{
		name: "Early Hints, then 201",
		handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusCreated)
		},
		client: func(t *testing.T, s *httptest.Server) string {
			hints := 0
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
				hints++
				return nil
			}})
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
			require.NoError(t, err)
			res, err := s.Client().Do(r)
			require.NoError(t, err)
			_ = text(t, res)
			return fmt.Sprint(hints, " ", res.StatusCode)
		},
		cells: [3]string{"1 201", "1 200", "1 201"}, // TimeoutHandler takes 103 for the status
	},
	{
		name: "trailers",
		handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set("X-Sum", "4")
		},
		client: func(t *testing.T, s *httptest.Server) string {
			res, err := s.Client().Get(s.URL)
			require.NoError(t, err)
			_ = text(t, res)
			return "trailer " + res.Trailer.Get("X-Sum")
		},
		cells: [3]string{"trailer 4", "trailer 4", "trailer 4"},
	},
	{
		name:    "io.ReaderFrom, with which files are sent without a copy",
		handler: func(w http.ResponseWriter, _ *http.Request) { _, ok := w.(io.ReaderFrom); _, _ = fmt.Fprint(w, ok) },
		client:  body,
		plain:   true,
		cells:   [3]string{"true", "false", "true"},
	},
	{
		name:    "a handler blocked in Body.Read",
		plain:   true,
		handler: func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		client: func(t *testing.T, s *httptest.Server) string {
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			require.NoError(t, err)
			defer c.Close()
			_, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
			require.NoError(t, err)
			require.NoError(t, c.SetReadDeadline(time.Now().Add(15*limit)))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				return "no answer"
			}
			return fmt.Sprint(res.StatusCode)
		},
		cells: [3]string{"503", "no answer", "no answer"},
	},
	{
		name: "a panic after the time",
		handler: func(http.ResponseWriter, *http.Request) {
			time.Sleep(2 * limit)
			panic("marked panic")
		},
		client: func(t *testing.T, s *httptest.Server) string {
			if res, err := s.Client().Get(s.URL); err == nil {
				_ = text(t, res)
			}
			time.Sleep(3 * limit) // until it has happened
			if strings.Contains(logs.String(), "marked panic") {
				return "logged"
			}
			return "lost"
		},
		cells: [3]string{"logged", "lost", "logged"},
	},
	{
		name: "memory for an answer of 64 MiB",
		handler: func(w http.ResponseWriter, _ *http.Request) {
			for range 64 {
				_, _ = w.Write(make([]byte, 1<<20))
				arrived.Add(1)
				if arrived.Load() == 1 { // the client has nothing yet if this is buffered
					time.Sleep(limit / 4)
					_, _ = fmt.Fprint(w, seen.Load() > 0)
					return
				}
			}
		},
		client: func(t *testing.T, s *httptest.Server) string {
			arrived.Store(0)
			seen.Store(0)
			res, err := s.Client().Get(s.URL)
			require.NoError(t, err)
			defer res.Body.Close()
			buf := make([]byte, 32<<10)
			tail := ""
			for {
				n, err := res.Body.Read(buf)
				seen.Add(int64(n))
				tail += strings.Trim(string(buf[:n]), "\x00")
				if err != nil {
					return map[string]string{"true": "passed on", "false": "buffered"}[tail]
				}
			}
		},
		cells: [3]string{"passed on", "buffered", "passed on"},
	},
}

var (
	logs          testkit.Buffer
	arrived, seen atomic.Int64
)

func text(t *testing.T, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(b)
}

func body(t *testing.T, s *httptest.Server) string {
	t.Helper()
	res, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	return text(t, res)
}

func answer(t *testing.T, s *httptest.Server) string {
	t.Helper()
	res, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	kind := "text"
	if b := text(t, res); b == "" {
		kind = "empty"
	} else if strings.HasPrefix(b, `{"result":"error"`) {
		kind = "JSON"
	}
	return fmt.Sprint(res.StatusCode, " ", kind)
}

func TestTimeoutsCompared(t *testing.T) {
	log.SetOutput(&logs) // slog.Default and net/http write there
	for _, wire := range testkit.Wires {
		for i, c := range contestants {
			for _, b := range behaviours {
				if b.plain && wire != testkit.HTTP1 {
					continue
				}
				t.Run(wire+"/"+c.name+"/"+b.name, func(t *testing.T) {
					logs.Reset()
					serve := testkit.ServeUnguarded // others let a handler use the request after its end
					if c.name == "admit" {
						serve = testkit.Serve
					}
					s := serve(t, wire, c.wrap(b.handler), func(s *http.Server) { s.ErrorLog = log.New(&logs, "", 0) })
					assert.Equal(t, b.cells[i], b.client(t, s))
				})
			}
		}
	}
}
