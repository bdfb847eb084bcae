package admit_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// wakable is a response writer of a server, whose Reads can be woken.
type wakable struct {
	*discard
	status int
}

func (w *wakable) WriteHeader(status int)          { w.status = status }
func (w *wakable) SetReadDeadline(time.Time) error { return nil }

// arrived returns a request of HTTP/1 as a server has it, whose body has arrived.
func arrived(tb testing.TB, head, body string) *http.Request {
	tb.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\n" + head + "\r\n\r\n" + body)))
	require.NoError(tb, err)
	return r
}

// A body that has arrived is read where the answer is written.
func TestRefusalOfABodyThatHasArrivedAllocations(t *testing.T) {
	h := admit.ContentType("application/json")(ok)
	w, r := &wakable{discard: newDiscard()}, arrived(t, "Content-Type: text/xml\r\nContent-Length: 2", "{}")
	allocs(t, 8, func() { h.ServeHTTP(w, r) })
	assert.Equal(t, 415, w.status)
	assert.NotContains(t, w.h, "Connection", "it is kept")
}

// BenchmarkRefusalOfABody tells what it costs that a body may still be on its way.
func BenchmarkRefusalOfABody(b *testing.B) {
	refuse := admit.ContentType("application/json")(ok)
	for name, r := range map[string]*http.Request{
		"none":    get("/"),
		"arrived": arrived(b, "Content-Type: text/xml\r\nContent-Length: 2", "{}"),
		"chunked": arrived(b, "Content-Type: text/xml\r\nTransfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n"),
	} {
		h := refuse
		if name == "none" {
			h = admit.APIKey(oneKey)(ok)
		}
		b.Run("body="+name, func(b *testing.B) {
			w := &wakable{discard: newDiscard()}
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}

// The parts of an upload, with pauses, and what follows it on the connection. The answer comes
// when the body has, or after 300 ms; a connection is kept where nothing else could follow.
func TestRefusalOfAnUploadInParts(t *testing.T) {
	t.Parallel()
	const next = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"
	type part struct {
		after time.Duration
		text  string
	}
	for name, test := range map[string]struct {
		head     string
		parts    []part
		leaves   bool // closes its writing side after them
		answered time.Duration
		answers  int
	}{
		"at once":              {"Content-Length: 4", []part{{0, "body"}}, false, 0, 1},
		"all but a byte":       {"Content-Length: 4", []part{{0, "bod"}}, false, 300, 1},
		"the last byte later":  {"Content-Length: 4", []part{{0, "bod"}, {100, "y" + next}}, false, 100, 2},
		"nothing, then all":    {"Content-Length: 4", []part{{299, "body" + next}}, false, 299, 2},
		"too late":             {"Content-Length: 4", []part{{0, "bod"}, {301, "y" + next}}, false, 300, 1},
		"a byte each 100 ms":   {"Content-Length: 4", []part{{0, "b"}, {100, "o"}, {100, "d"}, {99, "y" + next}}, false, 299, 2},
		"pipelined":            {"Content-Length: 4", []part{{0, "body" + next + next}}, false, 0, 3},
		"half-closed":          {"Content-Length: 4", []part{{0, "bod"}}, true, 0, 1},
		"half-closed, later":   {"Content-Length: 4", []part{{100, "bod"}}, true, 100, 1},
		"half-closed, whole":   {"Content-Length: 4", []part{{0, "body"}}, true, 0, 1},
		"chunked":              {"Transfer-Encoding: chunked", []part{{0, "4\r\nbody\r\n0\r\n\r\n" + next}}, false, 0, 2},
		"chunked, no end":      {"Transfer-Encoding: chunked", []part{{0, "4\r\nbody\r\n0\r\n"}}, false, 300, 1},
		"chunked, the end":     {"Transfer-Encoding: chunked", []part{{0, "4\r\nbody\r\n0\r\n"}, {100, "\r\n" + next}}, false, 100, 2},
		"chunked, a bad end":   {"Transfer-Encoding: chunked", []part{{0, "4\r\nbody\r\n0\r\n"}, {100, "x y\r\n\r\n" + next}}, false, 100, 1},
		"chunked, half-closed": {"Transfer-Encoding: chunked", []part{{0, "4\r\nbod"}}, true, 0, 1},
		"not asked for":        {"Expect: 100-continue\r\nContent-Length: 4", []part{{0, "body" + next}}, false, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := servePipe(t, new(admit.ErrorWriter).Wrap(admit.APIKey(oneKey)(ok)))
				began := time.Now()
				go func() {
					_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\n"+test.head+"\r\n\r\n")
					for _, p := range test.parts {
						time.Sleep(p.after * time.Millisecond)
						_, _ = io.WriteString(c.client, p.text)
					}
					if test.leaves {
						_, _ = io.WriteString(c.client, leaves)
					}
				}()
				r := bufio.NewReader(c.client)
				for i := range test.answers {
					res, body := answerOn(t, r)
					require.Equal(t, 401, res.StatusCode, body)
					if i == 0 {
						assert.Equal(t, test.answered*time.Millisecond, time.Since(began))
					}
				}
				require.NoError(t, c.client.SetReadDeadline(time.Now().Add(time.Minute)))
				more, _ := io.ReadAll(r)
				assert.Empty(t, string(more))
				require.NoError(t, c.client.Close())
				time.Sleep(time.Minute) // the server has its pauses
			})
		})
	}
}

// panicking is a writer of others that panics with the status.
type panicking struct{ http.ResponseWriter }

func (w panicking) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (panicking) WriteHeader(status int)        { panic(status) }

// undated is one that panics where a deadline is set.
type undated struct{ http.ResponseWriter }

func (w undated) Unwrap() http.ResponseWriter   { return w.ResponseWriter }
func (undated) SetReadDeadline(time.Time) error { panic(401) }

// A writer that panics while the body is still read does so where it would without that, and the
// connection is cut at once.
func TestRefusalOfAnUploadPanicsInItsGoroutine(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sent string
		with func(http.ResponseWriter) http.ResponseWriter
		in   string // where it panics, for the log
	}{
		"stalled":    {"part", func(w http.ResponseWriter) http.ResponseWriter { return panicking{w} }, "panicking.WriteHeader"},
		"large":      {strings.Repeat("x", 256<<10), func(w http.ResponseWriter) http.ResponseWriter { return panicking{w} }, "panicking.WriteHeader"},
		"a deadline": {"part", func(w http.ResponseWriter) http.ResponseWriter { return undated{w} }, "undated.SetReadDeadline"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var recovered any
			h := admit.APIKey(oneKey)(ok)
			c := servePipe(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					recovered = recover()
					panic(http.ErrAbortHandler)
				}()
				h.ServeHTTP(test.with(w), r)
			}))
			began := time.Now()
			go func() {
				_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"+test.sent)
			}()
			_, err := c.client.Read(make([]byte, 1))
			assert.ErrorIs(t, err, io.EOF, name)
			if p, ok := recovered.(*admit.HandlerPanic); assert.True(t, ok, "%s: %v", name, recovered) {
				assert.Equal(t, 401, p.Value, name)
				assert.Contains(t, string(p.Stack), test.in, name)
			}
			assert.LessOrEqual(t, time.Since(began), 300*time.Millisecond, name)
			require.NoError(t, c.client.Close())
		})
	}
}

// A Total that ends while the rest of an upload is waited for ends that too: the server reads what
// is left when it cuts the connection, and does so without a deadline.
func TestRefusalOfAnUploadInATotal(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(w io.Writer){
		"stalled": func(io.Writer) {},
		"slow": func(w io.Writer) {
			for {
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
	} {
		for _, d := range []time.Duration{250 * time.Millisecond, 310 * time.Millisecond, 600 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				timeout, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: d, Total: d})
				require.NoError(t, err)
				c := servePipe(t, wrap(ok, admit.Timeout(time.Second), timeout.Wrap, admit.APIKey(oneKey)))
				began := time.Now()
				go func() {
					_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\npart")
					send(c.client)
				}()
				require.NoError(t, c.client.SetReadDeadline(time.Now().Add(time.Minute)))
				_, err = io.Copy(io.Discard, c.client)
				require.NoError(t, err, "%s, %v: the server closes", name, d)
				assert.LessOrEqual(t, time.Since(began), 2*time.Second, "%s, %v", name, d)
				require.NoError(t, c.client.Close())
				time.Sleep(time.Minute) // the server has its pauses
			})
		}
	}
}

// counting is a writer of others that counts what goes through it.
type counting struct {
	http.ResponseWriter
	headers, writes int
}

func (w *counting) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *counting) Flush()                      { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w *counting) WriteHeader(status int)      { w.headers++; w.ResponseWriter.WriteHeader(status) }
func (w *counting) Write(p []byte) (int, error) { w.writes++; return w.ResponseWriter.Write(p) }

// An answer is written once, also where the body comes to its end after it.
func TestRefusalOfAnUploadIsWrittenOnce(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{0, 299 * time.Millisecond, 301 * time.Millisecond, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			var w *counting
			h := admit.APIKey(oneKey)(ok)
			c := servePipe(t, http.HandlerFunc(func(inner http.ResponseWriter, r *http.Request) {
				w = &counting{ResponseWriter: inner}
				h.ServeHTTP(w, r)
			}))
			go func() {
				_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbod")
				time.Sleep(pause)
				_, _ = io.WriteString(c.client, "y")
			}()
			r := bufio.NewReader(c.client)
			res, _ := answerOn(t, r)
			require.Equal(t, 401, res.StatusCode)
			time.Sleep(2 * time.Second)
			assert.Equal(t, []int{1, 1}, []int{w.headers, w.writes}, pause)
			require.NoError(t, c.client.Close())
			time.Sleep(time.Minute)
		})
	}
}

// A client that waits for 100 Continue, and gets an error instead, cannot hold the connection: the
// server reads before it closes.
func TestRefusalOfAnUploadThatWaits(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "part"} {
		synctest.Test(t, func(t *testing.T) {
			c := servePipe(t, wrap(ok, admit.APIKey(oneKey)))
			began := time.Now()
			require.NoError(t, c.client.SetDeadline(began.Add(time.Minute)))
			go func() {
				_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n"+body)
			}()
			answer, err := io.ReadAll(c.client)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is held")
			assert.True(t, strings.HasPrefix(string(answer), "HTTP/1.1 401 "), "%s", answer)
			assert.LessOrEqual(t, time.Since(began), time.Second)
			require.NoError(t, c.client.Close())
			time.Sleep(time.Minute) // the server has its pauses
		})
	}
}
