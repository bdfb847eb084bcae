package admit_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

func TestWriteStallDoesNotBuild(t *testing.T) {
	t.Parallel()
	assert.Panics(t, func() { admit.WriteStall(0) })
	assert.Panics(t, func() { admit.WriteStall(-time.Second) })
	assert.Panics(t, func() { admit.WriteStall(time.Second)(nil) })
	_, err := admit.Policy{WriteStall: -1}.Chain()
	assert.ErrorContains(t, err, "Policy.WriteStall")
}

const getLine = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// A connection that holds nothing back, with a clock of its own: what a write waits for is
// the client alone.
func TestWriteStallOnTheClock(t *testing.T) {
	t.Parallel()
	const d = 10 * time.Second
	large := make([]byte, 1<<20)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, large, 0o600))
	writes := func(w http.ResponseWriter) error {
		_, err := w.Write(large)
		return err
	}
	for name, test := range map[string]struct {
		handle       func(http.ResponseWriter) error
		read         time.Duration // the client reads 8 KiB each; 0: nothing
		writeTimeout time.Duration
		cut          time.Duration // 0: not
	}{
		"reads nothing":             {writes, 0, 0, d},
		"reads slowly, but reads":   {writes, 1500 * time.Millisecond, 0, 0}, // five reads for a piece
		"reads too slowly":          {writes, 3 * time.Second, 0, d},
		"a WriteTimeout is earlier": {writes, 0, 4 * time.Second, 4 * time.Second},
		"a WriteTimeout is later":   {writes, 0, time.Minute, d},
		"a WriteTimeout holds":      {writes, time.Second, 20 * time.Second, 20 * time.Second},
		"strings": {func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, strings.Repeat("x", len(large)))
			return err
		}, 0, 0, d},
		"a file": {func(w http.ResponseWriter) error {
			f, err := os.Open(file)
			require.NoError(t, err)
			defer f.Close()
			_, err = io.Copy(w, f)
			return err
		}, 0, 0, d},
		"a part of a file": {func(w http.ResponseWriter) error {
			f, err := os.Open(file)
			require.NoError(t, err)
			defer f.Close()
			_, err = io.CopyN(w, f, 100_000)
			return err
		}, time.Second, 0, 0},
		"flushes": {func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() }, 0, 0, d},
		"is silent itself": {func(w http.ResponseWriter) error {
			for range 5 {
				if err := http.NewResponseController(w).Flush(); err != nil {
					return err
				}
				time.Sleep(3 * d)
			}
			return nil
		}, time.Second, 0, 0},
		"copies from what is silent": {func(w http.ResponseWriter) error {
			r, pipe := io.Pipe()
			go func() {
				for range 3 {
					_, _ = io.WriteString(pipe, "part")
					time.Sleep(3 * d)
				}
				_ = pipe.Close()
			}()
			_, err := io.Copy(w, r)
			return err
		}, time.Second, 0, 0},
		"returns": {func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, "short")
			return err
		}, 0, 0, d},
		"returns within a WriteTimeout": {func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, "short")
			return err
		}, 0, 3 * time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 1)
				c := servePipe(t, wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					ended <- test.handle(w)
				}), admit.RequestID, admit.WriteStall(d)), func(s *http.Server) { s.WriteTimeout = test.writeTimeout })
				began := time.Now()
				_, err := io.WriteString(c.client, getLine)
				require.NoError(t, err)
				var reader sync.WaitGroup
				if test.read > 0 {
					reader.Go(func() {
						for err := error(nil); err == nil; {
							time.Sleep(test.read)
							_, err = io.ReadFull(c.client, make([]byte, 8<<10))
						}
					})
				}
				err = <-ended
				if strings.HasPrefix(name, "returns") {
					assert.NoError(t, err, "it is in the server's buffer")
				} else {
					assert.Equal(t, test.cut > 0, err != nil, "%v", err)
				}
				synctest.Wait()
				if test.cut > 0 {
					time.Sleep(test.cut - time.Since(began) + time.Millisecond)
					synctest.Wait()
					assert.Equal(t, test.cut, c.closed.Sub(began))
				}
				_ = c.client.Close()
				reader.Wait()
			})
		})
	}
}

// After a hijack nothing is set on the connection.
func TestWriteStallAfterHijack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := servePipe(t, admit.WriteStall(time.Second)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if !assert.NoError(t, err) {
				return
			}
			go func() {
				defer conn.Close()
				_, err := io.WriteString(conn, "mine")
				assert.NoError(t, err)
			}()
		})))
		_, err := io.WriteString(c.client, getLine)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		mine, err := io.ReadAll(c.client)
		require.NoError(t, err)
		assert.Equal(t, "mine", string(mine))
	})
}

// Nor is anything after the handler has returned, but for what the server still sends: the
// next request of the connection has its time.
func TestWriteStallKeepsTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := servePipe(t, admit.WriteStall(time.Second)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			_, _ = io.WriteString(w, r.URL.Path)
		})))
		r := bufio.NewReader(c.client)
		for i := range 3 {
			path := fmt.Sprintf("/%d", i)
			_, err := io.WriteString(c.client, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			res, body := answerOn(t, r)
			assert.Equal(t, 200, res.StatusCode)
			assert.Equal(t, path, body)
			time.Sleep(time.Minute)
		}
	})
}

// Clients that read nothing do not keep their places: over each wire.
func TestWriteStallFreesPlaces(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			const clients = 8
			f := newInFlight(t, admit.InFlightConfig{Max: clients})
			ended := make(chan error, clients)
			s := serve(t, wire, admit.Policy{InFlight: f, WriteStall: 200 * time.Millisecond, Timeout: time.Minute}.Wrap(
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/good" {
						return
					}
					_, err := w.Write(make([]byte, 8<<20))
					ended <- err
				})))
			if wire == "HTTP/2" {
				h := dialHTTP2(t, s, 0)
				for i := range clients {
					h.get(uint32(2*i + 1))
				}
				for range clients {
					assert.Equal(t, frameReset, h.until(frameReset).kind, "the stream alone is ended")
				}
			} else {
				for range clients {
					_, err := io.WriteString(dial(t, s), getLine)
					require.NoError(t, err)
				}
			}
			for range clients {
				assert.Error(t, <-ended)
			}
			assert.Eventually(t, func() bool { running, _, _ := f.InUse(); return running == 0 }, 5*time.Second, time.Millisecond)
			res, _ := do(t, s, "GET", "/good", "")
			assert.Equal(t, 200, res.StatusCode)
		})
	}
}

// What a handler of HTTP/2 leaves to be sent is bounded, too.
func TestWriteStallBoundsTheRestOfHTTP2(t *testing.T) {
	t.Parallel()
	s := serve(t, "HTTP/2", wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, "short")
		assert.NoError(t, err)
	}), admit.RequestID, admit.WriteStall(200*time.Millisecond)))
	h := dialHTTP2(t, s, 0)
	h.get(1)
	assert.Equal(t, frameReset, h.until(frameReset).kind)
}

// A client that reads, be it slowly, gets all, over each wire.
func TestWriteStallLetsReadersBe(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	h := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/file" {
			http.ServeFile(w, r, path)
			return
		}
		_, _ = w.Write(content)
	}), new(admit.ErrorWriter).Wrap, admit.WriteStall(5*time.Second))
	for _, wire := range wires {
		for _, path := range []string{"/file", "/"} {
			t.Run(wire+path, func(t *testing.T) {
				t.Parallel()
				_, body := do(t, serve(t, wire, h), "GET", path, "")
				assert.True(t, bytes.Equal(content, body), "%d bytes of %d", len(body), len(content))
			})
		}
	}
}

// http2Client writes frames by hand (RFC 9113 §4.1), because no client that is polite gives
// a window of 0.
type http2Client struct {
	t testing.TB
	net.Conn
}

const (
	frameHeaders  byte = 0x1
	frameReset    byte = 0x3
	frameSettings byte = 0x4
)

type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func dialHTTP2(t testing.TB, s *httptest.Server, window uint32) *http2Client {
	t.Helper()
	c, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	h := &http2Client{t, c}
	_, err = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	require.NoError(t, err)
	h.send(frame{kind: frameSettings, payload: binary.BigEndian.AppendUint32([]byte{0, 4}, window)}) // INITIAL_WINDOW_SIZE
	return h
}

func (h *http2Client) send(f frame) {
	h.t.Helper()
	n := len(f.payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), f.kind, f.flags}
	b = binary.BigEndian.AppendUint32(b, f.stream)
	_, err := h.Write(append(b, f.payload...))
	require.NoError(h.t, err)
}

// get asks for / on a stream: indexed header fields, and a literal :authority (RFC 7541).
func (h *http2Client) get(stream uint32) {
	h.t.Helper()
	h.send(frame{frameHeaders, 0x5, stream, []byte("\x82\x87\x84\x41\x01x")})
}

// until reads frames up to one of a kind.
func (h *http2Client) until(kind byte) frame {
	h.t.Helper()
	for {
		var head [9]byte
		_, err := io.ReadFull(h, head[:])
		require.NoError(h.t, err)
		f := frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]), make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))}
		_, err = io.ReadFull(h, f.payload)
		require.NoError(h.t, err)
		if f.kind == kind {
			return f
		}
	}
}

// A client that sends slowly, and would read at once, never gets its answer: the time that
// WriteStall gives for it passes while the server reads the body.
func TestWriteStallLetsSlowUploadsBe(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.Handler{
		"small": admit.WriteStall(200 * time.Millisecond)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answer") })),
		"large": admit.WriteStall(200 * time.Millisecond)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5000)) })),
		"small, BodyTimeout": wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answer") }),
			admit.BodyTimeout{Grace: 2 * time.Second}.Wrap, admit.WriteStall(200*time.Millisecond)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, serve(t, testkit.HTTP1, h))
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
			require.NoError(t, err)
			time.Sleep(600 * time.Millisecond)
			_, err = io.WriteString(c, "0123456789")
			require.NoError(t, err)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err)
			assert.Equal(t, 200, res.StatusCode)
		})
	}
}

// The panic of a handler whose client has stalled is not lost.
func TestWriteStallKeepsAPanic(t *testing.T) {
	t.Parallel()
	logger, logs := logged()
	h := wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				panic("a fault of the handler")
			}
		}
	}), (&admit.ErrorWriter{Logger: logger}).Wrap, admit.Recover, admit.WriteStall(200*time.Millisecond))
	c := dial(t, serve(t, testkit.HTTP1, h))
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	assert.Eventually(t, func() bool { return strings.Contains(logs.String(), "a fault of the handler") }, 20*time.Second, 10*time.Millisecond)
}

// A client that takes nothing is no error of the service, for a handler that returns what
// Write has said: nobody is to fill the log by not reading.
func TestWriteStallIsTheClients(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			logger, logs := logged()
			ended := make(chan error, 1)
			observed := 0
			ew := &admit.ErrorWriter{Logger: logger, Observe: func(*http.Request, *admit.Error) { observed++ }}
			s := serve(t, wire, wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { ended <- recover().(error) }()
				admit.Policy{Errors: ew, WriteStall: 100 * time.Millisecond}.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
					_, err := w.Write(make([]byte, 32<<20))
					return err
				})).ServeHTTP(w, r)
			})))
			if wire == "HTTP/2" {
				dialHTTP2(t, s, 0).get(1)
			} else {
				_, err := io.WriteString(dial(t, s), getLine)
				require.NoError(t, err)
			}
			require.ErrorIs(t, <-ended, http.ErrAbortHandler)
			assert.NotContains(t, logs.String(), "level=ERROR")
			assert.Zero(t, observed)
		})
	}
}

// Server.WriteTimeout counts from the request, and not from WriteStall, which may stand
// inside a queue.
func TestWriteStallLeavesTheWriteTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	var last atomic.Int64
	h := admit.WriteStall(2 * time.Second)(ok)
	s := serve(t, testkit.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(1500 * time.Millisecond) // in a queue
		h.ServeHTTP(&deadlines{w, &last}, r)
	}), func(s *http.Server) { s.WriteTimeout = timeout })
	began := time.Now()
	testkit.Do(t, s, "GET", "/", "")
	if at := last.Load(); at != 0 {
		assert.LessOrEqual(t, time.Unix(0, at).Sub(began), timeout+50*time.Millisecond)
	}
}

// deadlines notes the last deadline for writing.
type deadlines struct {
	http.ResponseWriter
	last *atomic.Int64
}

func (w *deadlines) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *deadlines) SetWriteDeadline(at time.Time) error {
	w.last.Store(at.UnixNano())
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(at)
}
