package admit_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

// waitingRoom is a server whose one place is taken until leave is closed.
type waitingRoom struct {
	*admit.InFlight
	work   http.Handler
	server *httptest.Server
	leave  chan struct{}
	free   func() // closes leave, once
}

func newWaitingRoom(t *testing.T, wire string, h http.Handler) *waitingRoom {
	w := &waitingRoom{InFlight: newInFlight(t, admit.InFlightConfig{Max: 1, Queue: 3, Wait: time.Minute}), leave: make(chan struct{})}
	w.work = w.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/first" {
			<-w.leave
			return
		}
		h.ServeHTTP(rw, r)
	}))
	w.free = sync.OnceFunc(func() { close(w.leave) })
	w.server = serve(t, wire, w.work)
	t.Cleanup(w.free) // also where the test has failed: the server waits for its handlers
	go func() { _, _ = w.server.Client().Get(w.server.URL + "/first") }()
	w.waitFor(t, 1, 0)
	return w
}

func (w *waitingRoom) waitFor(t *testing.T, running, waiting int) {
	t.Helper()
	waitFor(t, w.InFlight, running, waiting)
}

func waitFor(t *testing.T, f *admit.InFlight, running, waiting int) {
	t.Helper()
	assert.Eventually(t, func() bool {
		r, q, _ := f.InUse()
		return r == running && q == waiting
	}, 10*time.Second, time.Millisecond, "%d run, %d wait", running, waiting)
}

// dial opens a connection by hand.
func (w *waitingRoom) dial(t *testing.T) net.Conn { return testkit.Dial(t, w.server) }

// Clients that have left give up their waits, be the body there or not.
func TestInFlightQueueAndClientsThatLeaveWithABody(t *testing.T) {
	t.Parallel()
	for _, wire := range testkit.PlainWires {
		for name, sent := range map[string]string{
			"whole body": "Content-Length: 10\r\n\r\n0123456789",
			"half of it": "Content-Length: 10\r\n\r\n01234",
			"none of it": "Content-Length: 10\r\n\r\n",
			"no body":    "\r\n",
			"the most":   "Content-Length: 16384\r\n\r\n" + strings.Repeat("x", 16384),
		} {
			t.Run(wire+"/"+name, func(t *testing.T) {
				t.Parallel()
				room := newWaitingRoom(t, wire, ok)
				for range 2 {
					var clients []net.Conn
					for range 3 {
						c := room.dial(t)
						_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n"+sent)
						require.NoError(t, err)
						clients = append(clients, c)
					}
					room.waitFor(t, 1, 3)
					for _, c := range clients {
						require.NoError(t, c.Close())
					}
					room.waitFor(t, 1, 0)
				}
				room.free()
				room.waitFor(t, 0, 0)
				res, _ := do(t, room.server, "POST", "/", "0123456789")
				assert.Equal(t, http.StatusOK, res.StatusCode)
			})
		}
	}
}

// What was read while a request waited is what its handler reads, and the connection goes on.
func TestInFlightQueueKeepsBodies(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		for _, n := range []int{0, 1, 16 << 10, 16<<10 + 1, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", wire, n), func(t *testing.T) {
				t.Parallel()
				sum := func(r *http.Request) string {
					body, err := io.ReadAll(r.Body)
					return fmt.Sprint(len(body), bytes.Count(body, []byte("x")), err)
				}
				room := newWaitingRoom(t, wire, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, sum(r)) }))
				answers := make(chan string)
				go func() {
					_, body := do(t, room.server, "POST", "/", strings.Repeat("x", n))
					answers <- string(body)
				}()
				room.waitFor(t, 1, 1)
				room.free()
				assert.Equal(t, fmt.Sprint(n, n, nil), <-answers)
				_, body := do(t, room.server, "POST", "/", "xx")
				assert.Equal(t, "2 2 <nil>", string(body))
			})
		}
	}
}

// A client that sends the rest of the body once the request has its place is waited for, by who
// reads the body, and as long as a BodyTimeout allows.
func TestInFlightQueueAndBodiesThatAreUnderWay(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rest   string
		status int
	}{"it comes": {"56789", 200}, "it does not": {"", 408}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			room := newWaitingRoom(t, testkit.HTTP1, admit.BodyTimeout{Grace: 200 * time.Millisecond}.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return err
				}
				_, err = w.Write(body)
				return err
			})))
			c := room.dial(t)
			defer c.Close()
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
			require.NoError(t, err)
			room.waitFor(t, 1, 1)
			room.free()
			room.waitFor(t, 1, 0)
			_, err = io.WriteString(c, test.rest)
			require.NoError(t, err)
			res, body := answerOn(t, bufio.NewReader(c))
			assert.Equal(t, test.status, res.StatusCode)
			if test.status == 200 {
				assert.Equal(t, "0123456789", string(body))
			}
			room.waitFor(t, 0, 0)
		})
	}
}

// Nobody is asked for a body before it is known that there is a place.
func TestInFlightQueueDoesNotAskForBodies(t *testing.T) {
	t.Parallel()
	room := newWaitingRoom(t, testkit.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	c := room.dial(t)
	defer c.Close()
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	require.NoError(t, err)
	room.waitFor(t, 1, 1)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err = c.Read(make([]byte, 1))
	assert.ErrorContains(t, err, "timeout")
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	room.free()
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, _ = in.ReadString('\n')
	_, err = io.WriteString(c, "xx")
	require.NoError(t, err)
	res, body := answerOn(t, in)
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, "xx", string(body))
}

// Who waits in vain gets its answer while it still sends, and keeps the connection if the rest
// of the body comes soon.
func TestInFlightQueueRefusesWhoStillSends(t *testing.T) {
	t.Parallel()
	for _, wire := range testkit.PlainWires {
		for _, rest := range []string{"56789", ""} {
			t.Run(fmt.Sprintf("%s/%q", wire, rest), func(t *testing.T) {
				t.Parallel()
				room := newWaitingRoom(t, wire, ok)
				impatient := newInFlight(t, admit.InFlightConfig{Max: 1, Queue: 1, Wait: 100 * time.Millisecond})
				first := send(impatient.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-room.leave })), get("/"))
				waitFor(t, impatient, 1, 0)
				server := serve(t, wire, impatient.Wrap(ok))
				room.server = server
				c := room.dial(t)
				defer c.Close()
				_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
				require.NoError(t, err)
				in := bufio.NewReader(c)
				if rest != "" {
					time.Sleep(50 * time.Millisecond) // after it has been refused
					_, err = io.WriteString(c, rest)
					require.NoError(t, err)
				}
				res, _ := answerOn(t, in)
				assert.Equal(t, http.StatusTooManyRequests, res.StatusCode)
				assert.Equal(t, rest == "", res.Close)
				room.free()
				<-first
				if rest != "" {
					_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					require.NoError(t, err)
					res, _ = answerOn(t, in)
					assert.Equal(t, http.StatusOK, res.StatusCode)
				}
			})
		}
	}
}

// Nothing reads the connection any more once the handler has returned, panicked or hijacked:
// its buffers may be somebody else's then.
func TestInFlightQueueReadsNothingAfterTheEnd(t *testing.T) { // not parallel: it looks at all goroutines
	reads := func() bool {
		stacks := make([]byte, 1<<20)
		for stack := range bytes.SplitSeq(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
			if bytes.Contains(stack, []byte("io.ReadFull")) && bytes.Contains(stack, []byte("admit.readAhead")) {
				return true
			}
		}
		return false
	}
	hijacked := make(chan string, 1)
	ends := map[string]http.HandlerFunc{
		"returns": func(http.ResponseWriter, *http.Request) {},
		"answers": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") },
		"panics":  func(http.ResponseWriter, *http.Request) { panic("as asked for") },
		"aborts":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hijacks": func(w http.ResponseWriter, _ *http.Request) {
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if !assert.NoError(t, err) {
				return
			}
			defer conn.Close()
			assert.False(t, reads(), "while the connection is the handler's")
			got := make([]byte, 10)
			_, err = io.ReadFull(buffered, got)
			assert.NoError(t, err)
			hijacked <- string(got)
		},
	}
	for _, wire := range testkit.PlainWires {
		for name, end := range ends {
			t.Run(wire+"/"+name, func(t *testing.T) {
				grace := 200 * time.Millisecond // for a rest that does not come
				if name == "hijacks" {
					grace = time.Minute // for one that does
				}
				room := newWaitingRoom(t, wire, admit.BodyTimeout{Grace: grace}.Wrap(end))
				ended := make(chan bool, 1)
				guarded := wrap(room.work, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.Recover)
				room.server = serve(t, wire, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer func() { ended <- !reads() }()
					guarded.ServeHTTP(w, r)
				}))
				c := room.dial(t)
				defer c.Close()
				_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
				require.NoError(t, err)
				room.waitFor(t, 1, 1)
				room.free()
				if name == "hijacks" {
					time.Sleep(50 * time.Millisecond)
					_, err = io.WriteString(c, "56789")
					require.NoError(t, err)
				}
				assert.True(t, <-ended)
				if name == "hijacks" && assert.Len(t, hijacked, 1) {
					assert.Equal(t, "0123456789", <-hijacked, "what was read ahead is not lost")
				}
			})
		}
	}
}
