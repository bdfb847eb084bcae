package admit_test

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/published"
	"github.com/admit-go/admit/internal/testkit"
)

// The outcome of a request is what its client gets, on every wire.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	type out = published.Outcome
	says := func(route string, status int, code string) out { return out{Route: route, Status: status, Code: code} }
	policy := admit.Policy{Errors: &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}, Methods: []string{"GET"}, Timeout: 10 * time.Second}
	foreign := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), t, 1)))
		})
	}
	fails := admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return admit.NewError(409, "") })
	inner := http.NewServeMux()
	inner.Handle("GET /v1/inner/{id}", noted("GET /v1/inner/{id}", fails))
	routes := map[string]http.Handler{
		"/nothing":  http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		"/begun":    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }),
		"/conflict": policy.Wrap(fails),
		"/foreign":  foreign(policy.Wrap(foreign(fails))),
		"/text":     http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "text", http.StatusBadGateway) }),
		"/replaced": admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "text", http.StatusBadGateway) })),
		"/panics":   policy.Wrap(panics("as asked for")),
		"/informs":  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(404) }),
		"/mounted/": http.StripPrefix("/mounted", inner),
		"/retried": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fails.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(503)
		}),
		"/cut": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		"/cut/begun": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(418)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}),
	}
	ours := map[string]bool{"/conflict": true, "/foreign": true, "/replaced": true, "/panics": true, "/retried": true, "/mounted/v1/inner/1": true}
	mux := http.NewServeMux()
	for pattern, h := range routes {
		mux.Handle(pattern, h)
	}
	for name, around := range map[string]admit.Middleware{
		"alone": func(h http.Handler) http.Handler { return h }, "a policy": admit.Policy{Errors: policy.Errors}.Wrap, "a copy": foreign,
	} {
		for _, wire := range testkit.Wires {
			got := make(chan out, 1)
			s := testkit.Serve(t, wire, published.Outcomes(around(admit.Mux(mux)), func(_ *http.Request, o out) { got <- o }), silentLog)
			for path, want := range map[string]out{
				"/nothing": says("/nothing", 200, ""), "/begun": says("/begun", 200, ""), "/conflict": says("/conflict", 409, "conflict"),
				"/foreign": says("/foreign", 409, "conflict"), "/text": says("/text", 502, ""), "/replaced": says("/replaced", 502, "bad_gateway"),
				"/panics": says("/panics", 500, "internal"), "/informs": says("/informs", 404, ""), "/retried": says("/retried", 503, ""),
				"/mounted/v1/inner/1": says("GET /v1/inner/{id}", 409, "conflict"), "/mounted/none": says("/mounted/", 404, ""),
				"/none": says("", 404, "not_found"),
			} {
				if name == "a copy" && !ours[path] {
					want.Route = "" // nobody outside knows the copy that has it
				}
				res, _ := testkit.Do(t, s, "GET", path, "")
				assert.Equal(t, want.Status, res.StatusCode)
				assert.Equal(t, want, <-got, "%s, %s on %s", path, name, wire)
			}
			for _, path := range []string{"/cut", "/cut/begun"} {
				res, err := s.Client().Get(s.URL + path)
				if err == nil {
					_, err = io.ReadAll(res.Body)
					_ = res.Body.Close()
				}
				require.Error(t, err)
			}
			o := <-got
			assert.Equal(t, 418, o.Status, "what has been cut before it began has no outcome")
			assert.Empty(t, got)
		}
	}
}

func silentLog(s *http.Server) { s.ErrorLog = log.New(io.Discard, "", 0) }

// noted is what package contract does.
func noted(pattern string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		published.SetRoute(r, &pattern)
		h.ServeHTTP(w, r)
	})
}

// What was sent has its code, and a connection that is somebody else's has no outcome.
func TestOutcomesOfWhatIsNotSent(t *testing.T) {
	t.Parallel()
	got := make(chan published.Outcome, 1)
	fails := errors.New("broken")
	s := testkit.Serve(t, "HTTP/1.1", published.Outcomes(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/hijacks" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				err = conn.Close()
			}
			return err
		}
		_, _ = io.WriteString(w, "begun")
		return fails
	}), func(_ *http.Request, o published.Outcome) { got <- o }), silentLog)
	for _, path := range []string{"/hijacks", "/"} {
		res, err := s.Client().Get(s.URL + path)
		if err == nil {
			_, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
		require.Error(t, err)
	}
	assert.Equal(t, published.Outcome{Status: 200}, <-got)
	assert.Empty(t, got)
}

// What a handler that is late says does not count.
func TestOutcomeOfALateHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []published.Outcome
		h := published.Outcomes(admit.Timeout(time.Second)(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			time.Sleep(2 * time.Second)
			return errors.New("late")
		})), func(_ *http.Request, o published.Outcome) { got = append(got, o) })
		h.ServeHTTP(httptest.NewRecorder(), get("/"))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.Equal(t, []published.Outcome{{Status: 503, Code: "handler_timeout"}}, got)
	})
}

// Who wants to know of every request pays next to nothing for it.
func TestOutcomesAllocateLittle(t *testing.T) {
	policy := admit.Policy{}.Wrap(answer(200))
	h := published.Outcomes(policy, func(*http.Request, published.Outcome) {})
	r := get("/", "X-Request-Id", "known")
	w := newDiscard()
	alone := testing.AllocsPerRun(100, func() { policy.ServeHTTP(w, r) })
	allocs(t, alone, func() { h.ServeHTTP(w, r) })
}
