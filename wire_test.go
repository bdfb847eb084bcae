package admit_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
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

// These tests are about time on real sockets, so that synctest cannot hold the clock.

// plainWires are those on which bytes can be written by hand.
var plainWires = testkit.PlainWires

// dial opens a connection on which a test writes bytes by hand.
func dial(t testing.TB, s *httptest.Server) net.Conn {
	t.Helper()
	return testkit.Dial(t, s)
}

// answerOn reads one response and its body.
func answerOn(t testing.TB, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	return testkit.Answer(t, r)
}

// slowBody gives its first part, and then nothing until it is closed.
type slowBody struct {
	io.Reader
	closed chan struct{}
	once   sync.Once
}

func newSlowBody(first string) *slowBody {
	return &slowBody{Reader: strings.NewReader(first), closed: make(chan struct{})}
}

func (b *slowBody) Read(p []byte) (int, error) {
	if n, err := b.Reader.Read(p); err == nil {
		return n, nil
	}
	<-b.closed
	return 0, io.ErrUnexpectedEOF
}

func (b *slowBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// stalledUpload posts a body that does not end, and returns the answer and the time it
// took.
func stalledUpload(t testing.TB, s *httptest.Server, path string, length int64) (*http.Response, string, time.Duration) {
	t.Helper()
	b := newSlowBody("part")
	defer b.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, b)
	require.NoError(t, err)
	r.ContentLength = length
	r.Header.Set("Content-Type", "application/json")
	began := time.Now()
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body), time.Since(began)
}

// A refusal reaches a client that stalls in the middle of its upload. What net/http
// does without it is the test below.
func TestRefusalReachesAStalledUpload(t *testing.T) {
	t.Parallel()
	h := new(admit.ErrorWriter).Wrap(admit.APIKey(oneKey)(ok))
	for _, wire := range wires {
		for name, length := range map[string]int64{"Content-Length": 1 << 20, "chunked": -1} {
			t.Run(wire+", "+name, func(t *testing.T) {
				t.Parallel()
				res, body, took := stalledUpload(t, serve(t, wire, h), "/", length)
				assert.Equal(t, 401, res.StatusCode)
				assert.Contains(t, body, "key_missing")
				assert.Less(t, took, 5*time.Second, "without reading for a bounded time it would never come")
				assert.Equal(t, wire != "HTTP/2", res.Close, "only HTTP/1 gives up the connection")
			})
		}
	}
}

// The finding that this stands on: without reading for a bounded time, net/http waits
// for up to 256 KiB of the body, however long it takes.
func TestNetHTTPKeepsARefusalFromAStalledUpload(t *testing.T) {
	t.Parallel()
	s := serve(t, "HTTP/1.1", answer(http.StatusUnauthorized))
	c := dial(t, s)
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Second)))
	_, err = c.Read(make([]byte, 1))
	assert.ErrorContains(t, err, "timeout", "the 401 is not there after a second")
}

// The client that writes its whole body before it reads sees the status, not a reset.
func TestRefusedUploadsSeeTheStatus(t *testing.T) {
	t.Parallel()
	const size = 640 << 10 // more than net/http reads, and soon sent over TLS on 32 bits too
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
	content := bytes.Repeat([]byte("x"), size)
	chunked := "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	handlers := map[string]http.Handler{
		"401": admit.APIKey(oneKey)(ok),
		"413": admit.MaxBody(1000)(ok),
		"413 chunked": admit.MaxBody(1000)(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			_, err := admit.Decode[string](r)
			return err
		})),
	}
	for _, wire := range plainWires {
		for status, h := range handlers {
			t.Run(wire+" "+status, func(t *testing.T) {
				t.Parallel()
				s := serve(t, wire, new(admit.ErrorWriter).Wrap(h))
				for range 40 {
					c := dial(t, s)
					if strings.HasSuffix(status, "chunked") {
						_, err := io.WriteString(c, chunked)
						require.NoError(t, err)
						w := bufio.NewWriter(c)
						for part := range 64 {
							_, err = fmt.Fprintf(w, "%x\r\n%s\r\n", size/64, content[part*size/64:(part+1)*size/64])
							require.NoError(t, err)
						}
						_, err = w.WriteString("0\r\n\r\n")
						require.NoError(t, err)
						require.NoError(t, w.Flush())
					} else {
						_, err := io.WriteString(c, head)
						require.NoError(t, err)
						_, err = c.Write(content)
						require.NoError(t, err)
					}
					res, body := answerOn(t, bufio.NewReader(c))
					require.Equal(t, status[:3], fmt.Sprint(res.StatusCode), body)

				}
			})
		}
	}
	for _, wire := range wires {
		t.Run(wire+" with net/http's client", func(t *testing.T) {
			t.Parallel()
			s := serve(t, wire, new(admit.ErrorWriter).Wrap(admit.APIKey(oneKey)(ok)))
			for range 40 {
				res, body := do(t, s, "POST", "/", string(content))
				require.Equal(t, 401, res.StatusCode, string(body))
			}
		})
	}
}

// A small body that is there is read, and the connection is kept.
func TestRefusalKeepsTheConnection(t *testing.T) {
	t.Parallel()
	h := new(admit.ErrorWriter).Wrap(admit.APIKey(oneKey)(ok))
	for _, wire := range plainWires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			c := dial(t, serve(t, wire, h))
			r := bufio.NewReader(c)
			for range 3 {
				for _, upload := range []string{"Content-Length: 8\r\n\r\nfourmore", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"} {
					_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n"+upload)
					require.NoError(t, err)
					res, _ := answerOn(t, r)
					require.Equal(t, 401, res.StatusCode)
					require.False(t, res.Close)
				}
			}
		})
	}
}

// So is one that comes within 300 ms.
func TestRefusalWaitsForTheRest(t *testing.T) {
	t.Parallel()
	for pause, closed := range map[time.Duration]bool{299 * time.Millisecond: false, 301 * time.Millisecond: true} {
		synctest.Test(t, func(t *testing.T) {
			c := servePipe(t, new(admit.ErrorWriter).Wrap(admit.APIKey(oneKey)(ok)))
			go func() {
				_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nfour")
				time.Sleep(pause)
				_, _ = io.WriteString(c.client, "more")
			}()
			began := time.Now()
			res, _ := answerOn(t, bufio.NewReader(c.client))
			assert.Equal(t, 401, res.StatusCode)
			assert.Equal(t, closed, res.Close)
			assert.Equal(t, min(pause, 300*time.Millisecond), time.Since(began))
			time.Sleep(time.Minute)
		})
	}
}

// A client that asks before it sends is refused at once, and not asked to send.
func TestExpectContinueIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	for name, wrapper := range map[string]admit.Middleware{"401": admit.APIKey(oneKey), "413": admit.MaxBody(10)} {
		for _, wire := range plainWires {
			t.Run(wire+" "+name, func(t *testing.T) {
				t.Parallel()
				s := serve(t, wire, new(admit.ErrorWriter).Wrap(wrapper(ok)))
				fastest := time.Hour
				for range 5 { // waiting for a body would take 300 ms each time
					c := dial(t, s)
					began := time.Now()
					_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
					require.NoError(t, err)
					res, _ := answerOn(t, bufio.NewReader(c))
					fastest = min(fastest, time.Since(began))
					assert.Equal(t, name, fmt.Sprint(res.StatusCode), "and no 100 before it")
					assert.True(t, res.Close)
				}
				assert.Less(t, fastest, 250*time.Millisecond)
			})
		}
	}
}

// An error after the whole body has been read keeps the connection, Expect or not.
func TestExpectContinueAfterTheBody(t *testing.T) {
	t.Parallel()
	h := wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := admit.Decode[int](r)
		return err
	}), new(admit.ErrorWriter).Wrap, admit.MaxBody(100))
	c := dial(t, serve(t, "HTTP/1.1", h))
	r := bufio.NewReader(c)
	for range 2 {
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
		require.NoError(t, err)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
		_, err = r.ReadString('\n')
		require.NoError(t, err)
		_, err = io.WriteString(c, `"x"`)
		require.NoError(t, err)
		res, _ := answerOn(t, r)
		require.Equal(t, 422, res.StatusCode)
		require.False(t, res.Close)
	}
}

// Whatever follows a refusal on its connection is never run as a request.
func TestNothingIsSmuggledBehindARefusal(t *testing.T) {
	t.Parallel()
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\nX-API-Key: good\r\n\r\n"
	var ran sync.Map
	inside := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/smuggled" {
			ran.Store(r.Header.Get("X-Case"), true)
		}
		_, err := admit.Decode[string](r)
		return err
	})
	key := "X-API-Key: good\r\n"
	tests := map[string]struct {
		head, body string
		wait       time.Duration // between the two
		status     int
	}{
		"unread body that looks like a request": {"Content-Length: 1000\r\n", smuggled, 0, 401},
		"the same, later":                       {"Content-Length: 1000\r\n", smuggled, 500 * time.Millisecond, 401},
		"chunked, and junk":                     {"Transfer-Encoding: chunked\r\n", "4\r\nabcd\r\nzz\r\n" + smuggled, 0, 401},
		"chunked, with a chunk that lies":       {"Transfer-Encoding: chunked\r\n", "ffff\r\n" + smuggled, 0, 401},
		"over MaxBody, pipelined":               {key + "Content-Length: 5000\r\n", smuggled + smuggled, 0, 413},
		"over MaxBody, chunked, pipelined":      {key + "Transfer-Encoding: chunked\r\n", "7d0\r\n\"" + strings.Repeat("x", 1999) + "\r\n" + smuggled, 0, 413},
		"a body that stalls, then a request":    {key + "Content-Length: 1000\r\n", `"part` + smuggled, 0, 408},
		"expired, and more after the answer":    {key + "Content-Length: 1000\r\n", smuggled, 600 * time.Millisecond, 408},
		"expect, and the body all the same":     {"Expect: 100-continue\r\nContent-Length: 1000\r\n", smuggled, 50 * time.Millisecond, 401},
	}
	for _, wire := range plainWires {
		s := serve(t, wire, wrap(inside, new(admit.ErrorWriter).Wrap, admit.APIKey(oneKey), admit.MaxBody(1500),
			admit.BodyTimeout{Grace: 200 * time.Millisecond}.Wrap))
		for name, test := range tests {
			t.Run(wire+", "+name, func(t *testing.T) {
				t.Parallel()
				c := dial(t, s)
				_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n"+test.head+"\r\n")
				require.NoError(t, err)
				time.Sleep(test.wait)
				_, _ = io.WriteString(c, strings.ReplaceAll(test.body, "Host: x", "Host: x\r\nX-Case: "+wire+name))
				r := bufio.NewReader(c)
				res, body := answerOn(t, r)
				assert.Equal(t, test.status, res.StatusCode, body)
				rest, _ := io.ReadAll(r) // until the server closes
				assert.NotContains(t, string(rest), "HTTP/1.1", "no second answer")
				_, smuggledIn := ran.Load(wire + name)
				assert.False(t, smuggledIn)
			})
		}
	}
}

// pipe is a connection of a server in a bubble of synctest, so that time on it costs
// none. It notes when the server has closed its writing side, and all of it.
type pipe struct {
	net.Conn
	client          net.Conn
	halfway, closed time.Time
}

// servePipe serves h on a connection that holds nothing back: who writes to it waits
// until the other end reads.
func servePipe(t *testing.T, h http.Handler, configure ...func(*http.Server)) *pipe {
	t.Helper()
	server, client := net.Pipe()
	p := &pipe{Conn: server, client: client}
	conns := make(chan net.Conn, 1)
	conns <- p
	close(conns)
	s := &http.Server{Handler: testkit.Guard(t, h)}
	for _, f := range configure {
		f(s)
	}
	_ = s.Serve(onceListener(conns)) // serves on
	t.Cleanup(func() { _ = client.Close() })
	return p
}

// leaves is what a client sends that closes its writing side.
const leaves = "\x00"

func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if string(b[:n]) == leaves {
		return 0, io.EOF
	}
	return n, err
}

func (p *pipe) CloseWrite() error { p.halfway = time.Now(); return nil }
func (p *pipe) Close() error      { p.closed = time.Now(); return p.Conn.Close() }

// onceListener has one connection.
type onceListener chan net.Conn

func (l onceListener) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l onceListener) Close() error   { return nil }
func (l onceListener) Addr() net.Addr { return &net.TCPAddr{} }

// A refusal waits 300 ms for the rest of an upload. Then it is sent, and what still comes
// is read for half a second, and thrown away. The server then closes its writing side,
// and the other only after a pause: who closes with bytes unread makes the client's
// system throw the answer away.
func TestRefusalLingers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method, head string
		status       int
	}{
		"Content-Length": {"POST", "Content-Length: 1000000\r\n\r\n", 401},
		"chunked":        {"POST", "Transfer-Encoding: chunked\r\n\r\nf4240\r\n", 401},
		"expect":         {"POST", "Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n", 401},
		"OPTIONS":        {"OPTIONS", "Content-Length: 1000000\r\n\r\n", 204},
		"within MaxBody": {"POST", "X-API-Key: good\r\nContent-Length: 1000000\r\n\r\n", 409},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := servePipe(t, wrap(fails(admit.NewError(409, "")), new(admit.ErrorWriter).Wrap, admit.Methods("POST"),
					admit.APIKey(oneKey), admit.MaxBody(1<<20)))
				began := time.Now()
				sent := 0
				go func() {
					_, err := io.WriteString(c.client, test.method+" / HTTP/1.1\r\nHost: x\r\n"+test.head)
					for ; err == nil; _, err = c.client.Write([]byte("x")) {
						sent++
						time.Sleep(10 * time.Millisecond)
					}
				}()
				var settle time.Duration
				if name != "expect" {
					settle = 300 * time.Millisecond
				}
				r := bufio.NewReader(c.client)
				res, body := answerOn(t, r)
				assert.Equal(t, test.status, res.StatusCode)
				assert.Equal(t, test.status == 401, strings.Contains(body, "key_missing"))
				assert.True(t, res.Close)
				assert.Equal(t, settle, time.Since(began))
				linger := 500 * time.Millisecond
				if name == "expect" {
					linger = 0 // what has not been asked for is not read
				}
				_, err := r.ReadByte()
				assert.ErrorIs(t, err, io.EOF)
				synctest.Wait()
				assert.Equal(t, settle+linger, c.halfway.Sub(began))
				assert.Equal(t, 500*time.Millisecond, c.closed.Sub(c.halfway))
				assert.InDelta(t, c.halfway.Sub(began)/(10*time.Millisecond), sent, 2, "read until then")
			})
		})
	}
}

// A large upload is not waited for, and read all the same. A malformed one cannot be.
func TestRefusalOfLargeAndMalformedUploads(t *testing.T) {
	t.Parallel()
	const large = 1 << 20
	for name, test := range map[string]struct {
		head, body string
		pause      bool // before the connection is closed whole
	}{
		"large":     {fmt.Sprintf("Content-Length: %d\r\n\r\n", large), strings.Repeat("x", large), false},
		"malformed": {"Transfer-Encoding: chunked\r\n\r\n", "not a number\r\n", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := servePipe(t, new(admit.ErrorWriter).Wrap(admit.APIKey(oneKey)(ok)))
			began := time.Now()
			var sent int
			go func() {
				_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\n"+test.head)
				sent, _ = io.WriteString(c.client, test.body)
			}()
			r := bufio.NewReader(c.client)
			res, _ := answerOn(t, r)
			assert.Equal(t, 401, res.StatusCode, name)
			assert.True(t, res.Close, name)
			assert.Zero(t, time.Since(began), name)
			_, err := r.ReadByte()
			assert.ErrorIs(t, err, io.EOF)
			synctest.Wait()
			assert.Equal(t, len(test.body), sent, name)
			assert.Equal(t, test.pause, !c.halfway.IsZero(), name)
		})
	}
}

// Where no connection is at hand, nothing can be done for one.
func TestRefusalWithoutAConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newSlowBody("part")
		defer b.Close()
		r := httptest.NewRequest("POST", "/", b)
		r.ContentLength = -1
		began := time.Now()
		_, header := refused(t, admit.APIKey(oneKey)(ok), r, 401)
		assert.Zero(t, time.Since(began))
		assert.NotContains(t, header, "Connection")
	})
}

// An upload that ends while the refusal lingers needs no pause: nothing is unread.
func TestRefusalLingersNoLongerThanTheUpload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := servePipe(t, new(admit.ErrorWriter).Wrap(admit.APIKey(oneKey)(ok)))
		began := time.Now()
		go func() {
			_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\npa")
			time.Sleep(400 * time.Millisecond)
			_, _ = io.WriteString(c.client, "rt")
		}()
		r := bufio.NewReader(c.client)
		res, _ := answerOn(t, r)
		assert.Equal(t, 401, res.StatusCode)
		assert.True(t, res.Close)
		_, err := r.ReadByte()
		assert.ErrorIs(t, err, io.EOF)
		assert.Zero(t, c.halfway)
		assert.Equal(t, 400*time.Millisecond, c.closed.Sub(began))
	})
}

// What a handler has not read of the body must come within the Grace of a BodyTimeout.
// Then the connection is kept, and no deadline is left behind.
func TestUnreadBodyMustComeInTime(t *testing.T) {
	t.Parallel()
	const grace = 100 * time.Millisecond
	for _, pause := range []time.Duration{0, grace - 1, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c := servePipe(t, admit.BodyTimeout{Grace: grace}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "fine")
			})))
			r := bufio.NewReader(c.client)
			for range 2 {
				began := time.Now()
				go func() {
					_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf")
					time.Sleep(pause)
					_, _ = io.WriteString(c.client, "half")
				}()
				res, body := answerOn(t, r)
				assert.Equal(t, "fine", body)
				if pause == time.Hour {
					assert.Equal(t, grace, time.Since(began))
					_, err := r.ReadByte()
					assert.ErrorIs(t, err, io.EOF)
					time.Sleep(pause)
					break
				}
				assert.False(t, res.Close)
				time.Sleep(time.Minute)
			}
		})
	}
}

// A 503 of Timeout to a handler that does not read leaves the connection as it is, so
// that the body can be read, and the next request served.
func TestTimeoutOfAHandlerThatDoesNotReadKeepsTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := servePipe(t, wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}), admit.MaxBody(100), admit.Timeout(time.Second)))
		r := bufio.NewReader(c.client)
		for range 3 {
			go func() {
				_, _ = io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
				time.Sleep(1100 * time.Millisecond) // the handler has overrun by then
				_, _ = io.WriteString(c.client, "body")
			}()
			res, _ := answerOn(t, r)
			require.Equal(t, 503, res.StatusCode)
			require.False(t, res.Close)
		}
	})
}

// An http.MaxBytesHandler stands around the service. A refusal reads the rest of the body
// in a goroutine, which finds it too large and changes the header of the response, while
// the goroutine of the server writes it. Needs -race, or patience.
func TestRefusalInsideMaxBytesHandler(t *testing.T) {
	t.Parallel()
	h := http.MaxBytesHandler(admit.APIKey(oneKey)(ok), 256<<10+512)
	s := testkit.ServeUnguarded(t, testkit.HTTP1, h)
	content := bytes.Repeat([]byte("x"), 512<<10)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 50 {
				res, err := s.Client().Post(s.URL, "text/plain", struct{ io.Reader }{bytes.NewReader(content)})
				if err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
			}
		})
	}
	clients.Wait()
}

// soleBody is a body of others, such as a decompressor: not for two goroutines at once.
type soleBody struct {
	io.ReadCloser
	inside atomic.Int32
	atOnce *atomic.Int32
	panics bool
}

func (b *soleBody) Read(p []byte) (int, error) {
	if b.inside.Add(1) > 1 {
		b.atOnce.Add(1)
	}
	defer b.inside.Add(-1)
	if b.panics {
		panic("a body that panics")
	}
	n, err := b.ReadCloser.Read(p)
	time.Sleep(20 * time.Millisecond) // it has work to do with what it has read
	return n, err
}

func sole(atOnce *atomic.Int32) admit.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r2 := *r
			r2.Body = &soleBody{ReadCloser: r.Body, atOnce: atOnce}
			next.ServeHTTP(w, &r2)
		})
	}
}

// A body of others outside of the wrappers is read by two goroutines at once: by the
// handler, or a proxy's transport, and by the refusal.
func TestRefusalReadsNoBodyBesideOthers(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack() // cuts, while the body is on its way
		if err == nil {
			_ = c.Close()
		}
	}))
	t.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorHandler: admit.ProxyError}
	reads := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	for name, h := range map[string]http.Handler{
		"late handler": admit.Timeout(100 * time.Millisecond)(reads),
		"proxy":        wrap(proxy, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.BodyTimeout{Grace: 200 * time.Millisecond}.Wrap),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var atOnce atomic.Int32
			s := serve(t, testkit.HTTP1, sole(&atOnce)(h))
			c := dial(t, s)
			_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
			require.NoError(t, err)
			_, _ = io.ReadAll(c)
			assert.Zero(t, atOnce.Load(), "reads beside another")
		})
	}
}

// The same with a real decompressor, as the race detector sees it: what it then does is
// anybody's guess, and a panic there is in a goroutine that nobody recovers.
func TestRefusalReadsNoDecompressorBesideOthers(t *testing.T) {
	t.Parallel()
	decompress := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			zr, err := gzip.NewReader(r.Body)
			if err != nil {
				http.Error(w, err.Error(), 400)
				return
			}
			r2 := *r
			r2.Body = io.NopCloser(zr)
			r2.ContentLength = -1
			next.ServeHTTP(w, &r2)
		})
	}
	h := decompress(admit.Timeout(50 * time.Millisecond)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})))
	s := serve(t, testkit.HTTP1, h)
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	_, _ = zw.Write(bytes.Repeat([]byte("some text "), 100_000))
	_ = zw.Close()
	body, pipe := io.Pipe()
	go func() {
		for b := packed.Bytes(); len(b) > 0; {
			n := min(16, len(b))
			if _, err := pipe.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
			time.Sleep(2 * time.Millisecond)
		}
		_ = pipe.Close()
	}()
	res, err := s.Client().Post(s.URL, "text/plain", body)
	if err == nil {
		_ = res.Body.Close()
	}
	_ = body.Close()
}

// A body of others that panics is the server's to recover, as without a refusal: in the
// goroutine that reads for the refusal it ends the process.
func TestRefusalOfABodyThatPanics(t *testing.T) {
	t.Parallel()
	if os.Getenv("BREAK_BODY_PANICS") == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestRefusalOfABodyThatPanics$")
		c.Env = append(os.Environ(), "BREAK_BODY_PANICS=1")
		out, err := c.CombinedOutput()
		require.NoError(t, err, "the process ended:\n%.400s", out)
		return
	}
	h := admit.APIKey(oneKey)(ok)
	s := testkit.ServeUnguarded(t, testkit.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r2 := *r
		r2.Body = &soleBody{ReadCloser: r.Body, panics: true, atOnce: new(atomic.Int32)}
		h.ServeHTTP(w, &r2)
	}))
	res, err := http.Post(s.URL, "text/plain", strings.NewReader("body"))
	if err == nil {
		_ = res.Body.Close()
	}
}

// A late handler that panics inside Recover, and a late answer to OPTIONS, read the body
// of a request that is over.
func TestLateAnswersReadNothing(t *testing.T) {
	t.Parallel()
	late := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(1500 * time.Millisecond)
			next.ServeHTTP(w, r)
		})
	}
	for name, h := range map[string]http.Handler{
		"Recover": wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("late") }),
			(&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.Timeout(50*time.Millisecond), admit.Recover, late),
		"OPTIONS": wrap(ok, admit.Timeout(50*time.Millisecond), late, admit.Methods("GET")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, serve(t, testkit.HTTP1, testkit.GuardAll(t, h)))
			_, err := io.WriteString(c, "OPTIONS / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
			require.NoError(t, err)
			res, _ := answerOn(t, bufio.NewReader(c))
			assert.Equal(t, 503, res.StatusCode)
			time.Sleep(2500 * time.Millisecond)
		})
	}
}

// swallowed is the writer of a fallback: what fails is thrown away, and something else
// answers.
type swallowed struct {
	http.ResponseWriter
	failed bool
}

func (w *swallowed) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *swallowed) WriteHeader(status int) {
	if w.failed = status >= 400; !w.failed {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *swallowed) Write(p []byte) (int, error) {
	if w.failed {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

func fallback(a, b http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := &swallowed{ResponseWriter: w}
		a.ServeHTTP(first, r)
		if first.failed {
			b.ServeHTTP(w, r)
		}
	})
}

// The refusal of the first handler never reaches the client, and yet the lingering after it
// sends a header: the second cannot say 403 any more, nor read the body.
func TestRefusalThatIsThrownAway(t *testing.T) {
	t.Parallel()
	denied := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "denied", http.StatusForbidden) })
	h := fallback(admit.APIKey(oneKey)(ok), denied)
	c := dial(t, serve(t, testkit.HTTP1, h))
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	assert.Equal(t, 403, res.StatusCode)
}
