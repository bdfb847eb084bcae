package admit_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

// What the Policy under chaos allows.
const (
	chaosFirstByte = 250 * time.Millisecond
	chaosTotal     = 600 * time.Millisecond
	chaosBody      = 64 << 10
)

// Handlers and clients do what they should not, all at once, around good ones. The judges
// are the guard under the handler, the race detector, and the good clients: each gets its
// own answer, or a refusal of the Policy. ADMIT_CHAOS says how long it takes, such as 1m,
// and ADMIT_CHAOS_SEED repeats what was logged, as far as it depends on that.
func TestChaos(t *testing.T) { // not parallel: it counts goroutines
	long := time.Second * 5 / 2
	if testing.Short() {
		long = time.Second / 2
	}
	if s := os.Getenv("ADMIT_CHAOS"); s != "" {
		var err error
		long, err = time.ParseDuration(s)
		require.NoError(t, err)
	}
	seed := rand.Uint64()
	if s := os.Getenv("ADMIT_CHAOS_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	for _, wire := range wires {
		t.Run(wire, func(t *testing.T) {
			t.Logf("ADMIT_CHAOS_SEED=%d", seed)
			before := runtime.NumGoroutine()
			c := newChaos(t, wire)
			ctx, stop := context.WithTimeout(t.Context(), long)
			defer stop()
			var all sync.WaitGroup
			run := func(n int, client func(context.Context, *rand.Rand)) {
				for range n {
					seed++
					rnd := rand.New(rand.NewPCG(seed, 0))
					all.Go(func() {
						for ctx.Err() == nil {
							client(ctx, rnd)
						}
					})
				}
			}
			for range 3 {
				run(1, c.goodClient())
			}
			run(6, c.unrulyClient)
			if wire != testkit.HTTP2 {
				run(1, c.pipeline)
				run(6, c.clientByHand)
			}
			all.Wait()
			c.close()

			const none = "0 0 0, 0 0 0"
			inUse := func() string { return fmt.Sprint(c.inFlight.InUse()) + ", " + fmt.Sprint(c.shedder.InUse()) }
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if inUse() == none && runtime.NumGoroutine() <= before {
					break
				}
			}
			assert.Equal(t, none, inUse(), "every place comes back")
			if n := runtime.NumGoroutine(); n > before {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines, of %d before: %s", n, before, stacks[:runtime.Stack(stacks, true)])
			}
			t.Logf("%d good answers, %d refusals; %d requests in all", c.good.Load(), c.refused.Load(), c.logged.Load())
			assert.Positive(t, c.good.Load())
			assert.Equal(t, c.logged.Load(), c.observed.Load(), "each request is observed once")
			assert.Equal(t, c.logged.Load(), c.lines.good.Load(), "and has one line in the access log")
			assert.Zero(t, c.lines.bad.Load())
		})
	}
}

// chaos is a server, and what its handlers need.
type chaos struct {
	t                     *testing.T
	wire                  string
	server, upstream      *httptest.Server
	inFlight              *admit.InFlight
	shedder               *admit.Shedder
	quotas                *admit.Quotas
	proxy                 http.Handler
	toUpstream            *http.Transport
	file                  string
	content               []byte
	clients               []*http.Transport
	ids                   atomic.Int64
	good, refused, logged atomic.Int64
	observed              atomic.Int64
	lines                 lineCount
}

// lineCount counts the lines of a log, each of which is a JSON object.
type lineCount struct{ good, bad atomic.Int64 }

func (n *lineCount) Write(p []byte) (int, error) {
	if json.Valid(p) && bytes.Count(p, []byte("\n")) == 1 {
		n.good.Add(1)
	} else {
		n.bad.Add(1)
	}
	return len(p), nil
}

func newChaos(t *testing.T, wire string) *chaos {
	c := &chaos{t: t, wire: wire, file: filepath.Join(t.TempDir(), "file.txt"), content: bytes.Repeat([]byte("0123456789abcdef"), 16<<10)}
	require.NoError(t, os.WriteFile(c.file, c.content, 0o600))

	// It answers before it has read the body, and sometimes not at all.
	c.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 100))
		_, _ = io.WriteString(w, r.Header.Get("X-Request-Id"))
	}))
	c.upstream.Config.ErrorLog = log.New(io.Discard, "", 0)
	target, err := url.Parse(c.upstream.URL)
	require.NoError(t, err)
	c.toUpstream = new(http.Transport)
	c.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: c.toUpstream, ErrorHandler: admit.ProxyError,
		ErrorLog: log.New(io.Discard, "", 0),
	}

	c.inFlight = newInFlight(t, admit.InFlightConfig{Max: 8, Queue: 4, Wait: 50 * time.Millisecond})
	c.quotas = newQuotas(t, admit.QuotasConfig{})
	c.shedder = newShedder(t, admit.ShedderConfig{Max: 6, Plans: newPlans(t), Interval: 20 * time.Millisecond})
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: chaosFirstByte, Total: chaosTotal})
	require.NoError(t, err)
	p := admit.Policy{
		ClientIP: anyProxy, Observe: c.observe, Errors: &admit.ErrorWriter{Logger: discardLogs, Observe: func(r *http.Request, e *admit.Error) { _ = fmt.Sprint(r.Header, e) }},
		Maintenance: new(admit.Maintenance), InFlight: c.inFlight, Methods: []string{"GET", "POST"},
		Auth: newAuth(t, admit.AuthConfig{}), Scopes: []string{"orders:read"}, Plans: newPlans(t), AtLeast: "pro", Features: []string{"history"},
		Limiter: newLimiter(t, admit.LimiterConfig{
			Limits: []admit.Limit{{Requests: 1e9, Per: time.Minute}}, Refund: func(status int) bool { return status >= 500 }, LegacyHeaders: true,
		}),
		Quotas: c.quotas, Accept: []string{"text/plain"}, ContentType: []string{"text/plain"}, MaxBody: chaosBody, Shedder: c.shedder,
		BodyTimeout: admit.BodyTimeout{Grace: 100 * time.Millisecond, Max: time.Second, MinRate: 1 << 10},
		WriteStall:  200 * time.Millisecond, Timeout: chaosFirstByte,
	}
	h := admit.RequestID(admit.AccessLog(slog.New(slog.NewJSONHandler(&c.lines, nil)))(c.accessLog(p.Wrap(total.Wrap(admit.Intercept(admit.HandlerFunc(c.conduct)))))))
	c.server = serve(t, wire, h, func(s *http.Server) {
		s.ErrorLog = log.New(io.Discard, "", 0)
		s.ReadHeaderTimeout = 300 * time.Millisecond
	})
	return c
}

// close ends all that was opened.
func (c *chaos) close() {
	for _, client := range c.clients {
		client.CloseIdleConnections()
	}
	c.server.Client().CloseIdleConnections()
	c.server.Close()
	c.toUpstream.CloseIdleConnections()
	c.upstream.Close()
}

// accessLog reads what is its own when the others are done: the race detector sees who
// still changes it.
func (c *chaos) accessLog(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			key, _ := admit.SeenKeyFrom(r.Context())
			_ = fmt.Sprint(r.Method, r.URL, r.Header, r.Pattern, w.Header(), key, admit.RequestIDFrom(r.Context()), admit.ClientIPFrom(r))
			c.logged.Add(1)
		}()
		next.ServeHTTP(w, r)
	})
}

// observe is told of each request that got as far as the Policy, once.
func (c *chaos) observe(r *http.Request, o admit.Outcome) {
	_ = fmt.Sprint(r.Header, r.Pattern, o)
	c.observed.Add(1)
}

// What handlers do: those whose answer is known, and those that only do harm.
var (
	goodConducts = []string{"echo", "half", "stream", "hints", "file", "range", "error", "nothing", "proxy"}
	badConducts  = []string{
		"panic", "panic in the middle", "abort", "hijack", "upgrade", "overrun", "overrun in the middle", "overrun silently",
		"large", "read late", "text",
	}
	allConducts = append(append([]string{}, goodConducts...), badConducts...)
)

// conduct is the handler.
func (c *chaos) conduct(w http.ResponseWriter, r *http.Request) error {
	id := admit.RequestIDFrom(r.Context())
	control := http.NewResponseController(w)
	switch r.URL.Query().Get("do") {
	case "echo":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, id+string(body))
		return err
	case "half":
		_, _ = io.CopyN(io.Discard, r.Body, max(r.ContentLength/2, 10))
		_, err := io.WriteString(w, id)
		return err
	case "stream":
		w.Header().Set("Trailer", "X-Sum")
		for range 3 {
			if _, err := io.WriteString(w, id); err != nil {
				return err
			}
			if err := control.Flush(); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		w.Header().Set("X-Sum", id)
	case "hints":
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, id)
		_ = control.Flush() // a short answer would get a length, and no trailer
		w.Header().Set(http.TrailerPrefix+"X-Sum", id)
	case "file", "range":
		f, err := os.Open(c.file)
		if err != nil {
			return err
		}
		defer f.Close()
		http.ServeContent(w, r, "file.txt", time.Time{}, f)
	case "error":
		return admit.NewError(409, id)
	case "nothing":
	case "proxy":
		c.proxy.ServeHTTP(w, r)

	case "panic":
		panic("as asked for")
	case "panic in the middle":
		_, _ = io.WriteString(w, id)
		_ = control.Flush()
		panic("as asked for")
	case "abort":
		panic(http.ErrAbortHandler)
	case "hijack", "upgrade":
		conn, buffered, err := control.Hijack()
		if err != nil {
			return nil // HTTP/2 has none
		}
		_, _ = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buffered.Flush()
		use := func() {
			_ = conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
			line, _ := buffered.ReadString('\n')
			_, _ = io.WriteString(conn, line)
			_ = conn.Close()
		}
		if r.URL.Query().Get("do") == "upgrade" {
			go use() // it outlives its handler
		} else {
			use()
		}
	case "overrun":
		time.Sleep(chaosFirstByte + 50*time.Millisecond)
		c.late(w, r)
		return errors.New("late")
	case "overrun silently":
		time.Sleep(chaosFirstByte - 5*time.Millisecond + rand.N(10*time.Millisecond))
	case "overrun in the middle":
		w.Header().Set("X-Late", "not yet")
		for began := time.Now(); time.Since(began) < chaosTotal+50*time.Millisecond; time.Sleep(20 * time.Millisecond) {
			_, _ = io.WriteString(w, id)
			_ = control.Flush()
		}
		c.late(w, r)
		panic("late")
	case "large":
		piece := bytes.Repeat([]byte("x"), 64<<10)
		for range 128 {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
	case "read late":
		go func() { _, _ = io.Copy(io.Discard, r.Body) }() // as a proxy's transport does
		time.Sleep(rand.N(5 * time.Millisecond))
	case "text":
		http.Error(w, "text", http.StatusBadGateway)
	}
	return nil
}

// late does all that a handler may do which does not know that its time is over.
func (c *chaos) late(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	w.Header().Set("X-Late", "1")
	spoil(w.Header())
	w.WriteHeader(http.StatusEarlyHints)
	w.WriteHeader(http.StatusTeapot)
	_, _ = io.WriteString(w, "late")
	_, _ = io.Copy(w, strings.NewReader("late"))
	_ = control.Flush()
	_ = control.SetReadDeadline(time.Now())
	_ = control.SetWriteDeadline(time.Now())
	_ = control.EnableFullDuplex()
	_, _, _ = control.Hijack()
	_, _ = r.Body.Read(make([]byte, 10))
	_ = r.Body.Close()
	r.Header.Set("X-Late", "1")
	admit.WriteError(w, r, admit.NewError(409, "late"))
}

// ask returns a request for a conduct, as good clients send it.
func (c *chaos) ask(ctx context.Context, rnd *rand.Rand, do string, body io.Reader) *http.Request {
	method := "GET"
	if body != nil {
		method = "POST"
	}
	r, err := http.NewRequestWithContext(ctx, method, c.server.URL+"/?do="+url.QueryEscape(do), body)
	if err != nil {
		panic(err)
	}
	r.Header = http.Header{
		"X-Request-Id": {fmt.Sprint("id-", c.ids.Add(1))}, "X-Api-Key": {"good"}, "Accept": {"text/plain"}, "Content-Type": {"text/plain"},
	}
	if do == "range" {
		r.Header.Set("Range", "bytes=16-31")
	}
	if rnd.IntN(8) == 0 {
		r.Header.Set("Expect", "100-continue")
	}
	return r
}

// client is one with connections of its own, whose TCP connections it can reset.
func (c *chaos) client() (*http.Transport, func()) {
	var mu sync.Mutex
	var conns []net.Conn
	var dialer net.Dialer
	tr := &http.Transport{
		TLSClientConfig: c.server.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), ForceAttemptHTTP2: c.wire == testkit.HTTP2,
		ExpectContinueTimeout: 10 * time.Second,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, conn)
			}
			return conn, err
		},
	}
	return tr, func() {
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range conns {
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}
}

// goodClient asks again and again on connections that it keeps, and looks at every answer.
func (c *chaos) goodClient() func(context.Context, *rand.Rand) {
	tr, _ := c.client()
	c.clients = append(c.clients, tr)
	var before string
	var lasted time.Duration // of the answer before
	return func(_ context.Context, rnd *rand.Rand) {
		do := goodConducts[rnd.IntN(len(goodConducts))]
		var sent string
		var body io.Reader
		if do != "file" && do != "range" && rnd.IntN(2) == 0 {
			sent = strings.Repeat("b", 1+rnd.IntN(chaosBody/2))
			body = strings.NewReader(sent)
			if rnd.IntN(2) == 0 {
				body = struct{ io.Reader }{body} // chunked
			}
		}
		var reused bool
		trace := &httptrace.ClientTrace{GotConn: func(conn httptrace.GotConnInfo) { reused = conn.Reused }}
		r := c.ask(httptrace.WithClientTrace(c.t.Context(), trace), rnd, do, body)
		began := time.Now()
		res, err := tr.RoundTrip(r)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
		// A machine that is too slow is taken for a handler or a client that is, and then the
		// connection is closed, of which the client may hear when it has sent the next request.
		took := time.Since(began)
		if err != nil {
			slow := took
			if reused {
				slow += lasted
			}
			assert.Greater(c.t, slow, chaosFirstByte/4, "%s, reused %v after %s (%v): %v", do, reused, before, lasted, err)
			before, lasted = do, 0
			return
		}
		before, lasted = do, took
		c.judge(do, sent, r.Header.Get("X-Request-Id"), res, string(got))
	}
}

// judge looks at the answer to a good request.
func (c *chaos) judge(do, sent, id string, res *http.Response, got string) {
	what := fmt.Sprintf("%s, %d bytes: %d %s", do, len(sent), res.StatusCode, got[:min(len(got), 300)])
	if !assert.Equal(c.t, []string{id}, res.Header["X-Request-Id"], what) {
		return
	}
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestTimeout, http.StatusBadGateway:
		e := readEnvelope(c.t, res.StatusCode, res.Header, []byte(got))
		assert.Equal(c.t, id, e.RequestID)
		assert.Contains(c.t, []string{"overloaded", "handler_timeout", "request_timeout", "bad_gateway"}, e.Code, what)
		assert.True(c.t, e.Code != "bad_gateway" || do == "proxy", what)
		c.refused.Add(1)
		return
	}
	status, want := http.StatusOK, id
	switch do {
	case "echo":
		want = id + sent
	case "stream":
		want = id + id + id
	case "file":
		want = string(c.content)
	case "range":
		status, want = http.StatusPartialContent, string(c.content[16:32])
	case "nothing":
		want = ""
	case "error":
		status, want = http.StatusConflict, fmt.Sprintf(`{"result":"error","message":"%s","code":"conflict","request_id":"%s"}`+"\n", id, id)
	}
	assert.Equal(c.t, status, res.StatusCode, what)
	if want != got {
		assert.Fail(c.t, "another answer", "%s", what)
	}
	if do == "stream" || do == "hints" {
		assert.Equal(c.t, id, res.Trailer.Get("X-Sum"), what)
	}
	c.good.Add(1)
}

// unrulyBody stalls, fails, or does not end.
type unrulyBody struct {
	rnd  *rand.Rand
	left int
}

func (b *unrulyBody) Read(p []byte) (int, error) {
	switch b.rnd.IntN(12) {
	case 0:
		time.Sleep(time.Duration(b.rnd.IntN(150)) * time.Millisecond)
	case 1:
		return 0, errors.New("unruly")
	}
	if b.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(p), b.left, 1+b.rnd.IntN(8<<10))
	b.left -= n
	return n, nil
}

// unrulyClient has a client's usual faults, over any wire.
func (c *chaos) unrulyClient(ctx context.Context, rnd *rand.Rand) {
	tr, reset := c.client()
	tr.ExpectContinueTimeout = 20 * time.Millisecond // it does not wait to be told
	var all sync.WaitGroup
	most := 3
	if c.wire == testkit.HTTP2 {
		most = 6 // on one connection
	}
	for range 1 + rnd.IntN(most) {
		do := allConducts[rnd.IntN(len(allConducts))]
		if c.wire == testkit.HTTP2 && (do == "hints" || do == "proxy") {
			// net/http still reads the header of a 1xx, for a stream that was reset, when the
			// handler has it back.
			do = "echo"
		}
		var body io.Reader
		if rnd.IntN(2) == 0 {
			body = &unrulyBody{rand.New(rand.NewPCG(rnd.Uint64(), 0)), rnd.IntN(2 * chaosBody)}
		}
		patience := time.Duration(rnd.IntN(400)) * time.Millisecond
		reads := rnd.IntN(3)
		r := c.ask(ctx, rnd, do, body)
		all.Go(func() {
			asking, leave := context.WithTimeout(ctx, patience)
			defer leave()
			res, err := tr.RoundTrip(r.WithContext(asking))
			if err != nil {
				return
			}
			defer res.Body.Close()
			switch reads {
			case 0:
				<-asking.Done() // it reads nothing
			case 1:
				_, _ = res.Body.Read(make([]byte, 10))
			default:
				_, _ = io.Copy(io.Discard, res.Body)
			}
		})
	}
	if rnd.IntN(3) == 0 {
		time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
		reset()
	}
	all.Wait()
	tr.CloseIdleConnections()
	reset()
}

// text is a request by hand.
func (c *chaos) text(do, id, headers, body string) string {
	method := "GET"
	if headers != "" || body != "" {
		method = "POST"
	}
	return method + " /?do=" + url.QueryEscape(do) + " HTTP/1.1\r\nHost: x\r\nX-Request-Id: " + id +
		"\r\nX-API-Key: good\r\nAccept: text/plain\r\nContent-Type: text/plain\r\n" + headers + "\r\n" + body
}

// dial opens a connection for bytes by hand, for a time.
func (c *chaos) dial(long time.Duration) (conn net.Conn, tcp *net.TCPConn, err error) {
	raw, err := net.Dial("tcp", c.server.Listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(long))
	tcp = raw.(*net.TCPConn)
	if c.wire == testkit.HTTP1 {
		return raw, tcp, nil
	}
	return tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}), tcp, nil
}

// clientByHand does what no library would.
func (c *chaos) clientByHand(_ context.Context, rnd *rand.Rand) {
	conn, tcp, err := c.dial(time.Second)
	if !assert.NoError(c.t, err) {
		return
	}
	defer conn.Close()
	do, id := allConducts[rnd.IntN(len(allConducts))], fmt.Sprint("id-", c.ids.Add(1))
	wait := func(most int) { time.Sleep(time.Duration(rnd.IntN(most)) * time.Millisecond) }
	switch rnd.IntN(9) {
	case 0: // stalls in the header
		_, _ = io.WriteString(conn, c.text(do, id, "", "")[:40])
		wait(400)
	case 1: // stalls in the body, and waits for the answer
		_, _ = io.WriteString(conn, c.text(do, id, "Content-Length: 1000\r\n", "some"))
		_, _ = io.Copy(io.Discard, conn)
	case 2: // vanishes
		_, _ = io.WriteString(conn, c.text(do, id, "Content-Length: 4\r\n", "some"))
		wait(30)
	case 3: // resets
		_, _ = io.WriteString(conn, c.text(do, id, "Content-Length: 1000\r\n", "some"))
		wait(30)
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	case 4: // reads nothing
		_, _ = io.WriteString(conn, c.text("large", id, "", ""))
		wait(500)
		_ = tcp.SetLinger(0)
	case 5: // closes its half
		_, _ = io.WriteString(conn, c.text(do, id, "", ""))
		_ = tcp.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	case 6: // sends chunks that are too many
		_, _ = io.WriteString(conn, c.text(do, id, "Transfer-Encoding: chunked\r\n", ""))
		for range 2 + rnd.IntN(10) {
			if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", 16<<10, strings.Repeat("x", 16<<10)); err != nil {
				break
			}
			wait(3)
		}
		_, _ = io.Copy(io.Discard, conn)
	case 7: // sends what is no chunk
		_, _ = io.WriteString(conn, c.text(do, id, "Transfer-Encoding: chunked\r\n", "4\r\nsome\r\nno chunk\r\n"))
		_, _ = io.Copy(io.Discard, conn)
	case 8: // waits to be told to go on, and does not
		_, _ = io.WriteString(conn, c.text(do, id, "Content-Length: 1000\r\nExpect: 100-continue\r\n", ""))
		_, _ = io.Copy(io.Discard, conn)
	}
}

// pipeline sends several good requests at once: their answers come in order.
func (c *chaos) pipeline(_ context.Context, rnd *rand.Rand) {
	began := time.Now() // ReadHeaderTimeout counts from here
	conn, _, err := c.dial(10 * time.Second)
	if !assert.NoError(c.t, err) {
		return
	}
	defer conn.Close()
	type sent struct{ do, id, body string }
	var all []sent
	var text strings.Builder
	for range 1 + rnd.IntN(5) {
		s := sent{do: goodConducts[rnd.IntN(len(goodConducts))], id: fmt.Sprint("id-", c.ids.Add(1))}
		var headers string
		if s.do == "range" || s.do == "file" {
			s.do = "half"
		}
		if rnd.IntN(2) == 0 {
			s.body = strings.Repeat("p", 1+rnd.IntN(100))
			headers = fmt.Sprintf("Content-Length: %d\r\n", len(s.body))
		}
		all = append(all, s)
		text.WriteString(c.text(s.do, s.id, headers, s.body))
	}
	_, _ = io.WriteString(conn, text.String())
	answers := bufio.NewReader(conn)
	for _, s := range all {
		var res *http.Response
		for res == nil || res.StatusCode < 200 {
			if res, err = http.ReadResponse(answers, nil); err != nil {
				break
			}
		}
		var got []byte
		if err == nil {
			got, err = io.ReadAll(res.Body)
		}
		if err != nil {
			assert.Greater(c.t, time.Since(began), chaosFirstByte/2, "%s: %v", s.do, err)
			return
		}
		c.judge(s.do, s.body, s.id, res, string(got))
		if res.Close {
			return
		}
	}
}
