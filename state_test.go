package admit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// wrap puts wrappers around h, the first one outermost.
func wrap(h http.Handler, wrappers ...admit.Middleware) http.Handler {
	for i := len(wrappers) - 1; i >= 0; i-- {
		h = wrappers[i](h)
	}
	return h
}

var anyProxy = admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix("192.0.2.0/24"))

func TestStateIsAllocatedOnce(t *testing.T) {
	w, r := newDiscard(), get("/", "X-Request-Id", "known", "X-Forwarded-For", "198.51.100.7")
	one := admit.RequestID(ok)
	allocs(t, 2, func() { one.ServeHTTP(w, r) }) // the state, and the copy of the request
	all := wrap(ok, admit.RequestID, anyProxy, new(admit.ErrorWriter).Wrap, admit.Recover, new(admit.Maintenance).Wrap, admit.Methods("GET"))
	allocs(t, 2, func() { all.ServeHTTP(w, r) })
}

// An access log outside reads what a handler inside a timeout adds, while that
// handler still runs: the race detector is the judge.
func TestStateUnderATimeout(t *testing.T) {
	t.Parallel()
	for range 20 {
		release := make(chan struct{})
		inside := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "inner", admit.RequestIDFrom(r.Context()))
			<-release
		}), admit.RequestID, anyProxy, new(admit.ErrorWriter).Wrap)
		log := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r)
				_ = admit.RequestIDFrom(r.Context())
				_ = admit.ClientIPFrom(r)
				admit.WriteError(httptest.NewRecorder(), r, admit.NewError(503, ""))
				close(release)
			})
		}
		h := wrap(inside, new(admit.ErrorWriter).Wrap, log, func(next http.Handler) http.Handler {
			return http.TimeoutHandler(next, time.Microsecond, "")
		})
		h.ServeHTTP(httptest.NewRecorder(), get("/", "X-Request-Id", "inner"))
	}
}

func TestInnerWrapperShadowsOuter(t *testing.T) {
	t.Parallel()
	inner := admit.ClientIP("X-Real-Ip", netip.MustParsePrefix("192.0.2.0/24"))
	var before, inside, after string
	see := func(into *string, then http.Handler, again *string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			*into = admit.ClientIPFrom(r).String()
			if then != nil {
				then.ServeHTTP(w, r)
				*again = admit.ClientIPFrom(r).String()
			}
		})
	}
	h := anyProxy(see(&before, inner(see(&inside, nil, nil)), &after))
	h.ServeHTTP(httptest.NewRecorder(), get("/", "X-Forwarded-For", "198.51.100.7", "X-Real-Ip", "203.0.113.9"))
	assert.Equal(t, []string{"198.51.100.7", "203.0.113.9", "198.51.100.7"}, []string{before, inside, after})
}

// The copy of the request hides neither the pattern nor the parsed form from what
// stands outside.
func TestPatternAndFormComeBack(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/items/{id}", func(w http.ResponseWriter, r *http.Request) {
		require.NoError(t, r.ParseMultipartForm(1<<20))
		assert.Equal(t, "7", r.PathValue("id"))
	})
	h := wrap(admit.Mux(mux), admit.RequestID, anyProxy, new(admit.ErrorWriter).Wrap)
	r := newRequest("POST", "/v1/items/7", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n",
		"Content-Type", "multipart/form-data; boundary=b")
	h.ServeHTTP(httptest.NewRecorder(), r)
	assert.Equal(t, "POST /v1/items/{id}", r.Pattern)
	require.NotNil(t, r.MultipartForm)
	assert.Equal(t, []string{"1"}, r.MultipartForm.Value["a"])
}

func TestStateKeepsTheContextOfOthers(t *testing.T) {
	t.Parallel()
	type key struct{}
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "v"), time.Hour)
	defer cancel()
	admit.RequestID(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "v", r.Context().Value(key{}))
		_, bounded := r.Context().Deadline()
		assert.True(t, bounded)
		derived := context.WithValue(r.Context(), key{}, "w")
		assert.NotEmpty(t, admit.RequestIDFrom(derived))
	})).ServeHTTP(httptest.NewRecorder(), get("/").WithContext(ctx))
	assert.Empty(t, admit.RequestIDFrom(ctx))
}

func TestNilHandlersDoNotBuild(t *testing.T) {
	t.Parallel()
	for name, wrapper := range map[string]admit.Middleware{
		"RequestID": admit.RequestID, "Recover": admit.Recover, "ClientIP": anyProxy, "Methods": admit.Methods("GET"),
		"ErrorWriter": new(admit.ErrorWriter).Wrap, "Maintenance": new(admit.Maintenance).Wrap,
		"Intercept": func(h http.Handler) http.Handler { return admit.Intercept(h) },
		"Mux":       func(http.Handler) http.Handler { return admit.Mux(nil) },
		"nil ErrorWriter": func(http.Handler) http.Handler {
			return (*admit.ErrorWriter)(nil).Wrap(ok)
		},
		"nil Maintenance": func(http.Handler) http.Handler {
			return (*admit.Maintenance)(nil).Wrap(ok)
		},
	} {
		assert.Panics(t, func() { wrapper(nil) }, name)
	}
}

// A form that the first handler has parsed is there for the second as net/http leaves it:
// whole, since the body cannot be read again.
func TestFormsComeBackWhole(t *testing.T) {
	t.Parallel()
	form := "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n"
	parses := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { assert.Equal(t, "1", r.FormValue("a")) })
	for name, around := range map[string]admit.Middleware{
		"bare": func(h http.Handler) http.Handler { return h }, "RequestID": admit.RequestID, "Timeout": admit.Timeout(time.Minute),
		"Policy": admit.Policy{MaxBody: 1 << 10, Timeout: time.Minute}.Wrap,
	} {
		r := newRequest("POST", "/?q=2", form, "Content-Type", "multipart/form-data; boundary=b")
		inTurn(around(parses), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "1", r.FormValue("a"), name)
			assert.Equal(t, "1", r.PostFormValue("a"), name)
			assert.Equal(t, "2", r.FormValue("q"), name)
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
}
