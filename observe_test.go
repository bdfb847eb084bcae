package admit_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

// Each request is observed once, whatever ends it, on every wire: a client that reads its
// answer, one that leaves, a handler that panics, cuts, overruns or hijacks.
func TestObserve(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, bytes.Repeat([]byte("x"), 100_000), 0o600))
	late := make(chan struct{})
	t.Cleanup(func() { close(late) })
	broken := errors.New("the database is away")
	mux := http.NewServeMux()
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.Handle(pattern, admit.HandlerFunc(f))
	}
	handle("/fine", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, "fine")
		return err
	})
	handle("GET /item/{id}", func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	handle("/file", func(w http.ResponseWriter, r *http.Request) error {
		http.ServeFile(w, r, file)
		return nil
	})
	handle("/broken", func(http.ResponseWriter, *http.Request) error { return broken })
	handle("/panics", func(http.ResponseWriter, *http.Request) error { panic("as asked for") })
	handle("/cut", func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) })
	half := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
	}
	handle("/begun/cut", func(w http.ResponseWriter, r *http.Request) error {
		half(w, r)
		panic(http.ErrAbortHandler)
	})
	handle("/begun/broken", func(w http.ResponseWriter, r *http.Request) error {
		half(w, r)
		return broken
	})
	handle("/begun/panics", func(w http.ResponseWriter, r *http.Request) error {
		half(w, r)
		panic("as asked for")
	})
	handle("/slow", func(http.ResponseWriter, *http.Request) error { <-late; return nil })
	handle("/reads", func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.Copy(io.Discard, r.Body)
		return err
	})
	handle("/text", func(w http.ResponseWriter, _ *http.Request) error {
		http.Error(w, "no", http.StatusTeapot)
		return nil
	})
	leaves := make(chan context.CancelFunc, 1)
	handle("/leaves", func(w http.ResponseWriter, r *http.Request) error {
		(<-leaves)()
		<-r.Context().Done()
		return fmt.Errorf("read the table: %w", r.Context().Err())
	})
	handle("/leaves/panics", func(w http.ResponseWriter, r *http.Request) error {
		(<-leaves)()
		<-r.Context().Done()
		panic(fmt.Errorf("read the table: %w", r.Context().Err()))
	})
	handle("/begun/leaves", func(w http.ResponseWriter, r *http.Request) error {
		half(w, r)
		(<-leaves)()
		<-r.Context().Done()
		return fmt.Errorf("read the table: %w", r.Context().Err())
	})
	handle("/leaves/silently", func(w http.ResponseWriter, r *http.Request) error {
		(<-leaves)()
		<-r.Context().Done()
		return nil
	})
	handle("/hijacks", func(w http.ResponseWriter, _ *http.Request) error {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return conn.Close()
	})

	type want struct {
		status  int
		code    string
		written int64
		err     error
		text    string // of the error
	}
	type test struct {
		method, path, body string
		want               want
		route              string // "": the path
		ends               string // of the client: "" with an answer, else "cut" or "leaves"
	}
	cut := []test{
		{path: "/cut", want: want{status: 500, text: "cut"}, ends: "cut"},
		{path: "/begun/cut", want: want{status: 200, written: 4, text: "cut"}, ends: "cut"},
		{path: "/begun/broken", want: want{status: 200, code: "internal", written: 4, err: broken}, ends: "cut"},
		{path: "/begun/panics", want: want{status: 200, code: "internal", written: 4, text: "as asked for"}, ends: "cut"},
		{path: "/leaves", want: want{status: 499, err: context.Canceled, text: "read the table"}, ends: "leaves"},
		{path: "/leaves/panics", want: want{status: 499, err: context.Canceled, text: "read the table"}, ends: "leaves"},
		{path: "/begun/leaves", want: want{status: 200, written: 4, err: context.Canceled, text: "read the table"}, ends: "leaves"},
		{path: "/leaves/silently", want: want{status: 499, err: context.Canceled}, ends: "leaves"},
	}
	answered := []test{
		{path: "/fine", want: want{status: 200, written: 4}},
		{method: "POST", path: "/fine", body: "unread", want: want{status: 200, written: 4}},
		{path: "/item/1", want: want{status: 204}, route: "GET /item/{id}"},
		{path: "/file", want: want{status: 200, written: 100_000}},
		{method: "HEAD", path: "/file", want: want{status: 200}},
		{path: "/none", want: want{status: 404, code: "not_found", written: -1, text: "not"}, route: "-"},
		{path: "/broken", want: want{status: 500, code: "internal", written: -1, err: broken}},
		{path: "/panics", want: want{status: 500, code: "internal", written: -1, text: "as asked for"}},
		{path: "/slow", want: want{status: 503, code: "handler_timeout", written: -1, text: "time"}},
		{path: "/text", want: want{status: 418, written: 3}},
		{method: "POST", path: "/reads", body: "too long for this", want: want{status: 413, code: "body_too_large", written: -1, text: "large"}, route: "-"},
		{method: "DELETE", path: "/fine", want: want{status: 405, code: "method_not_allowed", written: -1, text: "method"}, route: "-"},
	}
	for _, wire := range testkit.Wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			outcomes, refundable := make(chan admit.Outcome, 10), make(chan int, 100)
			limiter := newLimiter(t, admit.LimiterConfig{
				Limits: []admit.Limit{admit.PerHour(1000)}, Refund: func(status int) bool { refundable <- status; return false },
			})
			h := admit.Policy{
				Errors: &admit.ErrorWriter{Logger: discardLogs}, Methods: []string{"GET", "POST"}, Limiter: limiter, MaxBody: 10,
				BodyTimeout: admit.BodyTimeout{Grace: 100 * time.Millisecond}, Timeout: 2 * time.Second,
				Observe: func(_ *http.Request, o admit.Outcome) { outcomes <- o },
			}.Wrap(admit.Mux(mux))
			s := testkit.Serve(t, wire, h, silentLog)
			s.Client().Transport.(*http.Transport).DisableKeepAlives = wire != testkit.HTTP2 // or it tries again what was cut
			for _, test := range append(answered, cut...) {
				if test.method == "" {
					test.method = "GET"
				}
				if test.route == "" {
					test.route = test.path
				}
				name := test.method + " " + test.path
				ctx, leave := context.WithCancel(t.Context())
				if test.ends == "leaves" {
					leaves <- leave
				}
				began := time.Now()
				r, err := http.NewRequestWithContext(ctx, test.method, s.URL+test.path, strings.NewReader(test.body))
				require.NoError(t, err)
				res, err := s.Client().Do(r)
				var body []byte
				if err == nil {
					body, err = io.ReadAll(res.Body)
					_ = res.Body.Close()
				}
				leave()
				assert.Equal(t, test.ends != "", err != nil, "%s: %v", name, err)
				if err == nil {
					assert.Equal(t, test.want.status, res.StatusCode, name)
				}
				var o admit.Outcome
				select {
				case o = <-outcomes:
				case <-time.After(10 * time.Second):
					t.Fatalf("%s was not observed", name)
				}
				assert.Equal(t, test.want.status, o.Status, name)
				assert.Equal(t, test.want.code, o.Code, name)
				assert.Equal(t, strings.TrimPrefix(test.route, "-"), o.Route, name)
				if test.want.written >= 0 {
					assert.Equal(t, test.want.written, o.Written, name)
				} else {
					assert.EqualValues(t, len(body), o.Written, name)
				}
				if test.want.err != nil {
					assert.ErrorIs(t, o.Err, test.want.err, name)
				}
				if test.want.text != "" {
					assert.ErrorContains(t, o.Err, test.want.text, name)
				}
				assert.Equal(t, test.want.err != nil || test.want.text != "", o.Err != nil, "%s: %v", name, o.Err)
				assert.WithinDuration(t, began, o.Start, 10*time.Second, name)
				assert.LessOrEqual(t, o.Duration, time.Since(began), name)
				assert.Positive(t, o.Duration, name)
				assert.Empty(t, outcomes, "%s: once", name)
				if o.Status != 405 { // which is outside of the Limiter
					assert.Equal(t, o.Status, <-refundable, "%s: as who counts it sees it", name)
				}
			}
			if wire == testkit.HTTP2 {
				return
			}
			res, _ := testkit.Do(t, s, "GET", "/hijacks", "")
			assert.Equal(t, 418, res.StatusCode)
			assert.Equal(t, 101, (<-outcomes).Status)
			assert.Equal(t, 101, <-refundable)

			c := testkit.Dial(t, s)
			_, err := io.WriteString(c, "POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n01")
			require.NoError(t, err)
			slow, _ := testkit.Answer(t, bufio.NewReader(c))
			assert.Equal(t, 408, slow.StatusCode)
			o := <-outcomes
			assert.Equal(t, 408, o.Status)
			assert.Equal(t, 408, <-refundable, "and no client that has left")
			assert.Equal(t, "request_timeout", o.Code)
			assert.ErrorIs(t, o.Err, os.ErrDeadlineExceeded)
		})
	}
}

// A request has one report of each kind: that of the outermost.
func TestObserveReportsOnce(t *testing.T) {
	t.Parallel()
	log, text := logged()
	lines, written := logged()
	var got []string
	says := func(who string) func(*http.Request, admit.Outcome) {
		return func(_ *http.Request, o admit.Outcome) { got = append(got, fmt.Sprint(who, " ", o.Status, " ", o.Code)) }
	}
	foreign := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r.Clone(r.Context())) })
	}
	inner := admit.Policy{Observe: says("inner policy"), Methods: []string{"GET"}}
	h := wrap(inner.Wrap(ok),
		(&admit.ErrorWriter{Logger: log}).Wrap,
		admit.ObserveAs("statsd", says("statsd")), admit.AccessLog(lines),
		admit.Policy{Observe: says("policy"), Errors: &admit.ErrorWriter{Logger: log}}.Wrap,
		admit.Observe(says("another")), admit.ObserveAs("statsd", says("inner statsd")), foreign,
		admit.AccessLog(lines), admit.ObserveAs("influx", says("influx")))
	for range 2 {
		allowed(t, h, get("/"))
	}
	refused(t, h, newRequest("PUT", "/", ""), 405)
	each := func(status string) []string {
		return []string{"influx " + status, "policy " + status, "statsd " + status}
	}
	assert.Equal(t, append(append(each("200 "), each("200 ")...), each("405 method_not_allowed")...), got)
	assert.Equal(t, 3, strings.Count(written.String(), "msg=request"), "%s", written)
	warned := text.String()
	assert.Equal(t, 4, strings.Count(warned, "is inside another"), "each once: %s", warned)
	assert.Equal(t, 2, strings.Count(warned, `"admit: Observe is inside another`), "%s", warned)
	assert.Contains(t, warned, `"admit: statsd is inside another`)
	assert.Contains(t, warned, `"admit: AccessLog is inside another`)

	got = nil
	twice := admit.Observe(says("around both"))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		retry := httptest.NewRecorder()
		inner.Wrap(ok).ServeHTTP(retry, httptest.NewRequest("PUT", "/", nil).WithContext(r.Context()))
		w.WriteHeader(retry.Code - 1) // an answer of its own
	}))
	w := httptest.NewRecorder()
	twice.ServeHTTP(w, get("/"))
	assert.Equal(t, []string{"around both 404 "}, got, "the error that it got is not the answer")
}

// Requests that follow or go along have an outcome each, and share nothing.
func TestObserveSharesNothing(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	store := admit.KeyMap{}
	for i := range 8 {
		store[admit.DigestOf(fmt.Sprint("token", i))] = &admit.Key{ID: fmt.Sprint("k", i), Owner: fmt.Sprint("o", i), Plan: fmt.Sprint("p", i)}
	}
	mux := http.NewServeMux()
	mux.Handle("/{n}", admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		n := r.PathValue("n")
		if n == "3" || n == "5" {
			return admit.NewError(409, "No.")
		}
		_, err := io.WriteString(w, strings.Repeat("x", len(n)))
		return err
	}))
	h := admit.Policy{
		Auth: newAuth(t, admit.AuthConfig{Store: store}),
		Observe: func(r *http.Request, o admit.Outcome) {
			mu.Lock()
			defer mu.Unlock()
			seen[fmt.Sprint(r.URL.Path, " ", o.Status, " ", o.Code, " ", o.KeyID, o.Owner, o.Plan, " ", o.Route)]++
		},
	}.Wrap(mux)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 200 {
				h.ServeHTTP(httptest.NewRecorder(), get(fmt.Sprint("/", i), "X-API-Key", fmt.Sprint("token", i)))
			}
		})
	}
	all.Wait()
	want := map[string]int{}
	for i := range 8 {
		if i == 3 || i == 5 {
			want[fmt.Sprintf("/%d 409 conflict k%[1]do%[1]dp%[1]d /{n}", i)] = 200
		} else {
			want[fmt.Sprintf("/%d 200  k%[1]do%[1]dp%[1]d /{n}", i)] = 200
		}
	}
	assert.Equal(t, want, seen)
}

// The key that was refused is in the outcome and in the log, with the reason, and its token in
// neither.
func TestOutcomeOfRefusedKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		store := admit.KeyMap{}
		add := func(token string, k admit.Key) {
			k.ID, k.Owner = "id of "+token, "owner of "+token
			if k.Plan == "" {
				k.Plan = "pro"
			}
			store[admit.DigestOf("secret-"+token)] = &k
		}
		add("good", admit.Key{})
		add("expired", admit.Key{ExpiresAt: now.Add(-time.Hour)})
		add("early", admit.Key{NotBefore: now.Add(time.Hour)})
		add("revoked", admit.Key{RevokedAt: now.Add(-time.Hour)})
		add("cheap", admit.Key{Plan: "free"})
		add("elsewhere", admit.Key{Networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}})
		plans := newPlans(t)
		for token, want := range map[string]struct {
			status int
			code   string
			key    admit.KeyStatus
		}{
			"good": {200, "", admit.KeyValid}, "expired": {401, "key_invalid", admit.KeyExpired}, "early": {401, "key_invalid", admit.KeyEarly},
			"revoked": {401, "key_invalid", admit.KeyRevoked}, "cheap": {402, "plan_required", admit.KeyValid},
			"elsewhere": {403, "address_not_allowed", admit.KeyValid}, "stranger": {401, "key_invalid", admit.KeyValid},
		} {
			var got admit.Outcome
			log, text := logged()
			h := wrap(ok, admit.AccessLog(log), admit.Policy{
				Auth: newAuth(t, admit.AuthConfig{Store: store}), Plans: plans, AtLeast: "pro", Observe: func(_ *http.Request, o admit.Outcome) { got = o },
			}.Wrap)
			h.ServeHTTP(httptest.NewRecorder(), get("/?api_key=secret-query", "X-API-Key", "secret-"+token))
			assert.Equal(t, want.status, got.Status, token)
			assert.Equal(t, want.code, got.Code, token)
			assert.Equal(t, want.key, got.KeyStatus, token)
			line := text.String()
			assert.NotContains(t, line, "secret")
			if token == "stranger" {
				assert.Empty(t, got.KeyID+got.Owner+got.Plan)
				assert.NotContains(t, line, "admit.key")
				continue
			}
			assert.Equal(t, "id of "+token, got.KeyID)
			assert.Equal(t, "owner of "+token, got.Owner)
			assert.NotEmpty(t, got.Plan)
			assert.Contains(t, line, fmt.Sprintf(`admit.key.id="id of %s" admit.key.owner="owner of %[1]s"`, token))
			assert.Equal(t, want.key != admit.KeyValid, strings.Contains(line, "admit.key.status="+want.key.String()), line)
		}
	})
}

// The time that a request has waited for a place is told, whether it got one or not.
func TestOutcomeOfAWait(t *testing.T) {
	t.Parallel()
	for name, bound := range map[string]func(*testing.T) bound{
		"InFlight": func(t *testing.T) bound {
			return newInFlight(t, admit.InFlightConfig{Max: 1, Queue: 2, Wait: 2 * time.Second})
		},
		"Shedder": func(t *testing.T) bound {
			return newShedder(t, admit.ShedderConfig{Max: 1, Interval: 2 * time.Second, Target: 2 * time.Second})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				outcomes := make(chan admit.Outcome, 3)
				g := newGate()
				h := admit.Observe(func(_ *http.Request, o admit.Outcome) { outcomes <- o })(bound(t).Wrap(g))
				first := send(h, get("/"))
				synctest.Wait()
				second := send(h, get("/"))
				synctest.Wait()
				time.Sleep(time.Second)
				third := send(h, get("/"))
				synctest.Wait()
				g.out <- struct{}{}
				<-first
				time.Sleep(2500 * time.Millisecond) // the third gives up
				<-third
				close(g.out)
				<-second
				got := []admit.Outcome{<-outcomes, <-outcomes, <-outcomes}
				assert.Zero(t, got[0].Waited)
				assert.Equal(t, []int{429, 200}, []int{got[1].Status, got[2].Status})
				assert.Equal(t, 2*time.Second, got[1].Waited)
				assert.Equal(t, time.Second, got[2].Waited)
				assert.Equal(t, 3500*time.Millisecond, got[2].Duration)
			})
		})
	}
}

// Who observes may read the header of a request whose handler is late and changes its own.
func TestObserveOfALateHandler(t *testing.T) {
	t.Parallel()
	log, text := logged()
	agents := make(chan string, 1)
	late := make(chan struct{})
	h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		defer close(late)
		r.Header.Set("User-Agent", "changed")
		<-r.Context().Done()
		for range 1000 {
			r.Header.Set("User-Agent", "changed later")
			r.Header.Set("X-Late", "1")
		}
	}), admit.AccessLog(log), admit.Policy{
		Errors: &admit.ErrorWriter{Logger: discardLogs}, Timeout: time.Millisecond,
		Observe: func(r *http.Request, _ admit.Outcome) { agents <- r.UserAgent() },
	}.Wrap)
	h.ServeHTTP(httptest.NewRecorder(), get("/", "User-Agent", "test"))
	<-late
	assert.Equal(t, "test", <-agents)
	assert.Contains(t, text.String(), "user_agent.original=test")
}

// What a handler says when it is late, be it because its context has ended, is not how the
// request ends.
func TestObserveOfALateError(t *testing.T) {
	t.Parallel()
	derived := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	}
	for name, h := range map[string]http.Handler{
		"returns": admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return r.Context().Err()
		}),
		"panics": admit.Recover(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			panic(r.Context().Err())
		})),
	} {
		synctest.Test(t, func(t *testing.T) {
			var got admit.Outcome
			observed := wrap(h, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o }), func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					h.ServeHTTP(w, r)
					synctest.Wait() // for what is late
				})
			}, admit.Timeout(time.Second), derived)
			observed.ServeHTTP(httptest.NewRecorder(), get("/"))
			assert.Equal(t, 503, got.Status, name)
			assert.Equal(t, "handler_timeout", got.Code, name)
			assert.ErrorContains(t, got.Err, "handler_timeout", name)
		})
	}
}

// A handler that asks two, and ends the context of the slower one, has not failed.
func TestObserveOfATryThatWasEnded(t *testing.T) {
	t.Parallel()
	var got admit.Outcome
	waits := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		<-r.Context().Done()
		return fmt.Errorf("waited in vain: %w", r.Context().Err())
	})
	h := admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o })(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := context.WithCancel(r.Context())
		end()
		waits.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
		_, _ = io.WriteString(w, "of the other")
	}))
	h.ServeHTTP(httptest.NewRecorder(), get("/"))
	assert.Equal(t, 200, got.Status)
	assert.NoError(t, got.Err)

	ctx, leave := context.WithCancel(t.Context())
	leave()
	admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o })(waits).ServeHTTP(httptest.NewRecorder(), get("/").WithContext(ctx))
	assert.Equal(t, 499, got.Status)
	assert.ErrorContains(t, got.Err, "waited in vain", "as the handler says it")
	assert.ErrorIs(t, got.Err, context.Canceled)

	cut := admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o })(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := context.WithCancel(r.Context())
		end()
		waits.ServeHTTP(w, r.WithContext(ctx))
		panic(http.ErrAbortHandler)
	}))
	assert.Equal(t, http.ErrAbortHandler.Error(), panicOf(func() { cut.ServeHTTP(httptest.NewRecorder(), get("/")) }))
	assert.Equal(t, 500, got.Status)
	assert.ErrorContains(t, got.Err, "waited in vain", "that is what has ended the request")
}

// A key that ends while its request goes on was not refused.
func TestOutcomeOfAKeyThatEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got admit.Outcome
		h := admit.Policy{
			Auth: newAuth(t, admit.AuthConfig{Store: admit.KeyMap{
				admit.DigestOf("token"): {ID: "k1", ExpiresAt: time.Now().Add(time.Minute)},
			}}),
			Observe: func(_ *http.Request, o admit.Outcome) { got = o },
		}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) }))
		allowed(t, h, get("/", "X-API-Key", "token"))
		assert.Equal(t, "k1", got.KeyID)
		assert.Equal(t, admit.KeyValid, got.KeyStatus)
	})
}

// Nothing of the body of an answer to HEAD is sent.
func TestOutcomeOfHead(t *testing.T) {
	t.Parallel()
	written := map[string]int64{}
	h := admit.Observe(func(r *http.Request, o admit.Outcome) { written[r.Method] = o.Written })(answerText("text"))
	for _, method := range []string{"GET", "HEAD"} {
		h.ServeHTTP(newDiscard(), newRequest(method, "/", ""))
	}
	assert.Equal(t, map[string]int64{"GET": 4, "HEAD": 0}, written)
}

func answerText(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

// The route is that of the innermost mux, whether or not those outside see its request.
func TestOutcomeOfNestedMuxes(t *testing.T) {
	t.Parallel()
	copies := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r.Clone(r.Context())) })
	}
	passes := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) })
	}
	for name, around := range map[string][]admit.Middleware{"a copy": {copies}, "a chain that saw the outer pattern": {passes, admit.RequestID}} {
		for seen, handler := range map[string]http.Handler{"a handler of ours": admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }), "another": ok} {
			if name == "a copy" && seen == "another" {
				continue // nobody sees it
			}
			var got admit.Outcome
			inner := http.NewServeMux()
			inner.Handle("/outer/{id}", handler)
			outer := http.NewServeMux()
			outer.Handle("/outer/", admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o })(wrap(inner, around...)))
			outer.ServeHTTP(httptest.NewRecorder(), get("/outer/1"))
			assert.Equal(t, "/outer/{id}", got.Route, "%s, %s", name, seen)
		}
	}
}

// A context that ends with a handler of others is no client that has left.
func TestObserveAroundAContextThatEnds(t *testing.T) {
	t.Parallel()
	var got admit.Outcome
	refundable := 0
	limiter := newLimiter(t, admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerHour(9)}, Refund: func(status int) bool { refundable = status; return false },
	})
	h := wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o }), func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, end := context.WithTimeout(r.Context(), time.Hour)
			defer end()
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	}, limiter.Wrap)
	h.ServeHTTP(httptest.NewRecorder(), get("/"))
	assert.Equal(t, 200, got.Status)
	assert.Equal(t, 200, refundable)
	assert.NoError(t, got.Err)
}

// Who observes inside of an Auth knows the key, also behind a mux.
func TestObserveInsideOfAuth(t *testing.T) {
	t.Parallel()
	var got admit.Outcome
	log, text := logged()
	store := admit.KeyMap{admit.DigestOf("secret"): {ID: "k1", Owner: "Anna", Plan: "pro"}}
	mux := http.NewServeMux()
	mux.Handle("/", wrap(ok, admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o }), admit.AccessLog(log)))
	h := admit.Policy{Auth: newAuth(t, admit.AuthConfig{Store: store})}.Wrap(mux)
	allowed(t, h, get("/", "X-API-Key", "secret"))
	assert.Equal(t, []string{"k1", "Anna", "pro"}, []string{got.KeyID, got.Owner, got.Plan})
	assert.Contains(t, text.String(), "admit.key.id=k1 admit.key.owner=Anna admit.plan=pro")
}

// A deadline of the service is no client that has left.
func TestOutcomeAfterADeadline(t *testing.T) {
	t.Parallel()
	var got admit.Outcome
	h := admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o })(ok)
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	h.ServeHTTP(httptest.NewRecorder(), get("/").WithContext(ctx))
	assert.Equal(t, 200, got.Status)
	assert.NoError(t, got.Err)
}

// A router that others around do not see says what has matched.
func TestSetRoute(t *testing.T) {
	t.Parallel()
	var got admit.Outcome
	observe := admit.Observe(func(_ *http.Request, o admit.Outcome) { got = o })
	mux := http.NewServeMux()
	mux.Handle("/api/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context()) // as a router does that keeps values of its own
		admit.SetRoute(r, "/api/{outer}/*")
		admit.SetRoute(r, "/api/{outer}/{inner}")
		admit.WriteError(w, r, admit.NewError(409, ""))
	}))
	observe(mux).ServeHTTP(httptest.NewRecorder(), get("/api/a/b"))
	assert.Equal(t, "/api/{outer}/{inner}", got.Route)
	assert.Equal(t, "conflict", got.Code)
	admit.SetRoute(get("/"), "/nobody/looks")
}

func TestOutcomeLabels(t *testing.T) {
	t.Parallel()
	o := admit.Outcome{Route: "/a/{b}", Status: 429, Code: "rate_limited", Plan: "pro", KeyID: "k", Owner: "o"}
	want := admit.Labels{Route: "/a/{b}", Method: "GET", Scheme: "http", Status: 429, Code: "rate_limited", Plan: "pro"}
	assert.Equal(t, want, o.Labels(get("/a/c")))
	for pattern, route := range map[string]string{"": "", "/": "/", "GET /a/{b}": "/a/{b}", "POST example.com/a": "/a", "GET ": "GET ", "noslash": "noslash"} {
		assert.Equal(t, route, admit.Outcome{Route: pattern}.Labels(get("/")).Route, "%q", pattern)
	}
	r := httptest.NewRequest("QUERY", "https://example.com/", nil)
	want.Method, want.Scheme = "QUERY", "https"
	assert.Equal(t, want, o.Labels(r))
	for _, method := range []string{"BREW", "get", "", "GET\x00", strings.Repeat("X", 1000)} {
		r.Method = method
		assert.Equal(t, "_OTHER", o.Labels(r).Method, "%q", method)
	}
}

// What the service has cut is counted apart from what it has answered.
func TestLabelsOfAnAnswerThatIsCut(t *testing.T) {
	t.Parallel()
	gone, leave := context.WithCancel(t.Context())
	leave()
	cut := errors.New("cut")
	for _, test := range []struct {
		o    admit.Outcome
		ctx  context.Context
		want string
	}{
		{admit.Outcome{Status: 200}, t.Context(), ""},
		{admit.Outcome{Status: 200, Err: cut}, t.Context(), "_OTHER"},
		{admit.Outcome{Status: 200, Err: cut, Code: "internal"}, t.Context(), "internal"},
		{admit.Outcome{Status: 200, Err: cut}, gone, ""},
		{admit.Outcome{Status: 499, Err: cut}, gone, ""},
		{admit.Outcome{Status: 500, Err: cut}, t.Context(), ""},
	} {
		assert.Equal(t, test.want, test.o.Labels(get("/").WithContext(test.ctx)).Code, "%+v", test.o)
	}
}

func TestObserveNeedsAFunctionAndAName(t *testing.T) {
	t.Parallel()
	f := func(*http.Request, admit.Outcome) {}
	assert.Contains(t, panicOf(func() { admit.Observe(nil) }), "the function is nil")
	assert.Contains(t, panicOf(func() { admit.ObserveAs("statsd", nil) }), "the function is nil")
	for _, name := range []string{"", "Observe", "AccessLog"} {
		assert.Contains(t, panicOf(func() { admit.ObserveAs(name, f) }), "does not identify a package", name)
	}
	assert.Contains(t, panicOf(func() { admit.Observe(f)(nil) }), "the handler is nil")
}

// Each name has a bit of its own, and one that there is none for is told so.
func TestObserverKinds(t *testing.T) {
	t.Parallel()
	kind := admit.NewKinds()
	var all uint64
	for i := range 64 {
		bit := kind(fmt.Sprint("name", i))
		assert.Equal(t, bit, kind(fmt.Sprint("name", i)))
		assert.Zero(t, all&bit)
		all |= bit
	}
	assert.Equal(t, ^uint64(0), all)
	assert.Contains(t, panicOf(func() { kind("one more") }), "64 names already; use one for each package")
}

// Within a Policy, observing needs no allocation.
func TestObserveAllocatesNothing(t *testing.T) {
	policy := admit.Policy{Errors: &admit.ErrorWriter{Logger: discardLogs}}
	plain := policy.Wrap(ok)
	var sum int64
	policy.Observe = func(_ *http.Request, o admit.Outcome) { sum += o.Written + int64(o.Status) }
	observed := policy.Wrap(ok)
	r, w := get("/", "X-Request-Id", "known"), newDiscard()
	limit := testing.AllocsPerRun(100, func() { plain.ServeHTTP(w, r) })
	allocs(t, limit, func() { observed.ServeHTTP(w, r) })
	assert.NotZero(t, sum)
}

func BenchmarkObserve(b *testing.B) {
	access := slog.New(slog.NewJSONHandler(io.Discard, nil))
	policy := admit.Policy{Errors: &admit.ErrorWriter{Logger: discardLogs}}
	observed := policy
	observed.Observe = func(*http.Request, admit.Outcome) {}
	for name, h := range map[string]http.Handler{
		"nothing": policy.Wrap(ok), "Policy.Observe": observed.Wrap(ok), "alone": admit.Observe(observed.Observe)(ok), "AccessLog": admit.AccessLog(access)(policy.Wrap(ok)),
	} {
		b.Run(name, func(b *testing.B) {
			r, w := get("/", "X-Request-Id", "known", "User-Agent", "test"), newDiscard()
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, r)
			}
		})
	}
}
