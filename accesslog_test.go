package admit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

// jsonAccessLog is an access log in JSON, and its lines so far, each as its text from "msg" on.
func jsonAccessLog() (admit.Middleware, func() []string) {
	var b testkit.Buffer
	l := slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return admit.AccessLog(l), func() []string {
		text := strings.TrimSuffix(b.String(), "\n")
		b.Reset()
		return strings.Split(text, "\n")
	}
}

// One line for each status, with what is known and nothing else.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		access, lines := jsonAccessLog()
		store := admit.KeyMap{
			admit.DigestOf("free"):    {ID: "k1", Owner: "Anna", Plan: "free", Scopes: []string{"read"}},
			admit.DigestOf("revoked"): {ID: "k2", Owner: "Bert", Plan: "pro", RevokedAt: time.Now()},
			admit.DigestOf("pro"):     {ID: "k3", Plan: "pro"},
		}
		plans := newPlans(t)
		mux := http.NewServeMux()
		errs := &admit.ErrorWriter{Logger: discardLogs}
		keyed := admit.Policy{
			ClientIP: anyProxy, Errors: errs, Methods: []string{"GET"}, Auth: newAuth(t, admit.AuthConfig{Store: store}), Plans: plans, Timeout: time.Second,
			Limiter: newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(2)}, Skip: func(r *http.Request) bool { return r.URL.Path != "/limited" }}),
		}
		pro, scoped, limited := keyed, keyed, keyed
		pro.AtLeast = "pro"
		scoped.Scopes = []string{"write"}
		mux.Handle("/fine/{id}", keyed.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("fine")) })))
		mux.Handle("/pro", pro.Wrap(ok))
		mux.Handle("/scoped", scoped.Wrap(ok))
		mux.Handle("/limited", limited.Wrap(ok))
		mux.Handle("/slow", keyed.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })))
		mux.Handle("/broken", keyed.Wrap(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return errors.New("the database is away") })))
		mux.Handle("/gone", keyed.Wrap(ok))
		h := wrap(admit.Policy{Errors: errs}.Wrap(admit.Mux(mux)), access)

		for _, test := range []struct{ path, key, want string }{
			{"/fine/1?api_key=free", "free", `"url.path":"/fine/1","http.route":"/fine/{id}","http.response.status_code":200,"http.response.body.size":SIZE,"http.server.request.duration":0,"client.address":"198.51.100.7","user_agent.original":"test","request_id":"r1","admit.key.id":"k1","admit.key.owner":"Anna","admit.plan":"free"`},
			{"/none", "", `"url.path":"/none","http.response.status_code":404,"http.response.body.size":SIZE,"http.server.request.duration":0,"client.address":"192.0.2.1","user_agent.original":"test","error.type":"not_found","request_id":"r1"`},
			{"/fine/1", "", `"url.path":"/fine/1","http.route":"/fine/{id}","http.response.status_code":401,"http.response.body.size":SIZE,"http.server.request.duration":0,"client.address":"198.51.100.7","user_agent.original":"test","error.type":"key_missing","request_id":"r1"`},
			{"/fine/1", "revoked", `"url.path":"/fine/1","http.route":"/fine/{id}","http.response.status_code":401,"http.response.body.size":SIZE,"http.server.request.duration":0,"client.address":"198.51.100.7","user_agent.original":"test","error.type":"key_invalid","request_id":"r1","admit.key.id":"k2","admit.key.owner":"Bert","admit.key.status":"revoked","admit.plan":"pro"`},
			{"/pro", "free", `"url.path":"/pro","http.route":"/pro","http.response.status_code":402,"http.response.body.size":SIZE,"http.server.request.duration":0,"client.address":"198.51.100.7","user_agent.original":"test","error.type":"plan_required","request_id":"r1","admit.key.id":"k1","admit.key.owner":"Anna","admit.plan":"free"`},
			{"/scoped", "free", `"url.path":"/scoped","http.route":"/scoped","http.response.status_code":403,"http.response.body.size":SIZE,"http.server.request.duration":0,"client.address":"198.51.100.7","user_agent.original":"test","error.type":"scope_required","request_id":"r1","admit.key.id":"k1","admit.key.owner":"Anna","admit.plan":"free"`},
			{"/slow", "pro", `"url.path":"/slow","http.route":"/slow","http.response.status_code":503,"http.response.body.size":SIZE,"http.server.request.duration":1,"client.address":"198.51.100.7","user_agent.original":"test","error.type":"handler_timeout","request_id":"r1","admit.key.id":"k3","admit.plan":"pro"`},
			{"/broken", "pro", `"url.path":"/broken","http.route":"/broken","http.response.status_code":500,"http.response.body.size":SIZE,"http.server.request.duration":0,"client.address":"198.51.100.7","user_agent.original":"test","error.type":"internal","error":"the database is away","request_id":"r1","admit.key.id":"k3","admit.plan":"pro"`},
		} {
			r := get(test.path, "X-Forwarded-For", "198.51.100.7", "User-Agent", "test", "X-Request-Id", "r1")
			if test.key != "" {
				r.Header.Set("X-API-Key", test.key)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			want := strings.Replace(test.want, "SIZE", strconv.Itoa(w.Body.Len()), 1)
			assert.Equal(t, []string{`{"level":"INFO","msg":"request","http.request.method":"GET",` + want + "}"}, lines(), test.path)
		}

		ctx, leave := context.WithCancel(t.Context())
		leave()
		h.ServeHTTP(httptest.NewRecorder(), get("/gone", "X-API-Key", "pro").WithContext(ctx))
		gone := lines()
		require.Len(t, gone, 1)
		assert.Contains(t, gone[0], `"http.response.status_code":499`)
		assert.Contains(t, gone[0], `"error":"context canceled"`)

		for range 3 {
			h.ServeHTTP(httptest.NewRecorder(), get("/limited", "X-API-Key", "pro"))
		}
		assert.Contains(t, lines()[2], `"http.response.status_code":429,`)
	})
}

// What a client makes up makes no line long, and no line two.
func TestAccessLogOfHostileRequests(t *testing.T) {
	t.Parallel()
	access, lines := jsonAccessLog()
	h := access(ok)
	for _, text := range []string{
		strings.Repeat("x", 1<<20), strings.Repeat("\n", 5000), strings.Repeat("é", 5000), strings.Repeat("\xff", 5000), strings.Repeat("\U0001F600", 5000),
		"\",\"admit.key.id\":\"forged", "a\nlevel=INFO msg=request\r\n", strings.Repeat("x", 509) + "\U0001F600y",
	} {
		r := get("/", "User-Agent", text)
		r.Method, r.URL.Path = text, "/"+text
		r.Header.Set("X-Request-Id", text)
		w := httptest.NewRecorder()
		w.Header().Set("X-Request-Id", text)
		h.ServeHTTP(w, r)
		got := lines()
		require.Len(t, got, 1)
		assert.Less(t, len(got[0]), 12_000) // escaped
		var line map[string]any
		require.NoError(t, json.Unmarshal([]byte(got[0]), &line))
		assert.Equal(t, "_OTHER", line["http.request.method"])
		assert.NotContains(t, line, "admit.key.id")
		path := line["url.path"].(string)
		assert.True(t, utf8.ValidString(path))
		assert.LessOrEqual(t, utf8.RuneCountInString(path), 520)
		if len(text) < 500 {
			assert.Equal(t, "/"+text, path)
		}
		attrs := []string{"client.address", "http.request.method", "http.response.body.size", "http.response.status_code", "http.server.request.duration", "level", "msg", "request_id", "url.path", "user_agent.original"}
		var have []string
		for name := range line {
			have = append(have, name)
		}
		slices.Sort(have)
		assert.Equal(t, attrs, have)
	}
}

// Nor does the text of an error, in which much of the request may stand.
func TestAccessLogOfErrors(t *testing.T) {
	t.Parallel()
	access, lines := jsonAccessLog()
	var fails error
	errs, errText := logged()
	h := wrap(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return fails }),
		access, (&admit.ErrorWriter{Logger: errs}).Wrap)
	for want, err := range map[string]error{
		strings.Repeat("x", 512) + "…": errors.New(strings.Repeat("x", 1<<20)),
		"a\nb":                         errors.New("a\nb"),
		"admit: an *Error that is nil": (*admit.Error)(nil),
		"<nil>":                        (*ownError)(nil), // as a function returns it that means none
		"busy":                         admit.NewError(409, "No.").WithCause(errors.New("busy")),
		"":                             admit.NewError(409, "No."),
	} {
		fails = err
		h.ServeHTTP(httptest.NewRecorder(), get("/"))
		got := lines()
		require.Len(t, got, 1)
		var line map[string]any
		require.NoError(t, json.Unmarshal([]byte(got[0]), &line))
		text, _ := line["error"].(string)
		assert.Equal(t, want, text)
	}
	assert.Less(t, len(errText.String()), 10_000, "nor is a line of the error log as long as an error likes")
	assert.Contains(t, errText.String(), strings.Repeat("x", 4<<10)+"…")
}

// A line says what the client has asked for, whatever becomes of the request inside, and reads
// nothing that a handler still writes which is late.
func TestAccessLogOfARequestThatIsChanged(t *testing.T) {
	t.Parallel()
	access, lines := jsonAccessLog()
	late, done := make(chan struct{}), make(chan struct{})
	h := access(http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		defer close(done)
		for i := 0; ; i++ {
			r.Method, r.URL.Path = "BREW", "/changed"
			r.Header.Set("User-Agent", strconv.Itoa(i))
			select {
			case <-late:
				return
			default:
			}
		}
	}), 20*time.Millisecond, ""))
	h.ServeHTTP(httptest.NewRecorder(), get("/asked", "User-Agent", "test"))
	close(late)
	<-done
	got := lines()
	require.Len(t, got, 1)
	assert.Contains(t, got[0], `"http.request.method":"GET","url.path":"/asked","http.response.status_code":503,`)
	assert.Contains(t, got[0], `"user_agent.original":"test"`)
}

// A line says how long a request has waited for a place, if it has, and nothing of a client
// that has no address.
func TestAccessLogOfAWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		access, lines := jsonAccessLog()
		inFlight := newInFlight(t, admit.InFlightConfig{Max: 1, Queue: 1, Wait: time.Minute})
		h := wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(1500 * time.Millisecond) }), access, inFlight.Wrap)
		for range 2 {
			r := get("/")
			r.RemoteAddr = ""
			go h.ServeHTTP(httptest.NewRecorder(), r)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		got := lines()
		require.Len(t, got, 2)
		assert.NotContains(t, got[0], "admit.wait")
		assert.Contains(t, got[1], `"admit.wait.duration":1.5`)
		assert.NotContains(t, got[1], "client.address")
	})
}

// A line is as long as a reader needs, and costs nothing where nobody reads.
func TestAccessLogThatNobodyReads(t *testing.T) {
	quiet := slog.New(slog.NewTextHandler(panicWriter{}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	h, r, w := admit.AccessLog(quiet)(ok), get("/"), newDiscard()
	allocs(t, 2, func() { h.ServeHTTP(w, r) })
	assert.Contains(t, panicOf(func() { admit.AccessLog(quiet)(nil) }), "the handler is nil")
}

type panicWriter struct{}

func (panicWriter) Write(p []byte) (int, error) { panic(fmt.Sprintf("%s was written", p)) }

type ownError struct{ text string }

func (e *ownError) Error() string { return e.text }
