package admit_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func TestRequestID(t *testing.T) {
	t.Parallel()
	const made = `^[0-9a-f]{32}$`
	tests := map[string]struct {
		sent []string
		want string
	}{
		"kept":            {[]string{"Az0._-"}, `^Az0\._-$`},
		"all bounds":      {[]string{"azAZ09"}, `^azAZ09$`},
		"one character":   {[]string{"a"}, `^a$`},
		"128 characters":  {[]string{strings.Repeat("a", 128)}, `^a{128}$`},
		"129 characters":  {[]string{strings.Repeat("a", 129)}, made},
		"absent":          {nil, made},
		"empty":           {[]string{""}, made},
		"a line break":    {[]string{"a\nb"}, made},
		"white space":     {[]string{"a b"}, made},
		"not ASCII":       {[]string{"é"}, made},
		"a quote":         {[]string{`a"b`}, made},
		"twice":           {[]string{"a", "b"}, made},
		"a slash and dot": {[]string{"../a"}, made},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := admit.RequestID(admit.RequestID(fails(admit.NewError(404, ""))))
			r := get("/")
			for _, id := range test.sent {
				r.Header.Add("X-Request-Id", id)
			}
			e, header := refused(t, h, r, 404)
			assert.Regexp(t, test.want, e.RequestID)
			assert.Equal(t, []string{e.RequestID}, header["X-Request-Id"])
		})
	}
}

// The neighbours of the characters that an id may have.
func TestRequestIDsWithOtherCharacters(t *testing.T) {
	t.Parallel()
	for _, c := range "`{@[/:,^\x7f" {
		w, r := httptest.NewRecorder(), get("/", "X-Request-Id", "a"+string(c)+"b")
		admit.RequestID(ok).ServeHTTP(w, r)
		assert.Len(t, w.Header().Get("X-Request-Id"), 32, "%q", c)
	}
}

func TestRequestIDsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		w := httptest.NewRecorder()
		admit.RequestID(ok).ServeHTTP(w, get("/"))
		id := w.Header().Get("X-Request-Id")
		seen[id[:16]], seen[id[16:]] = true, true
	}
	assert.Len(t, seen, 2000, "both halves")
}

// The id is there also when a handler takes the header away that it finds, as a
// ReverseProxy does after a 1xx.
func TestRequestIDAfterA1xx(t *testing.T) {
	t.Parallel()
	for name, around := range map[string]admit.Middleware{
		"RequestID": admit.RequestID, "Policy": admit.Policy{Timeout: time.Minute}.Wrap,
	} {
		w := httptest.NewRecorder()
		around(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			clear(w.Header())
			w.WriteHeader(http.StatusOK)
		})).ServeHTTP(w, get("/", "X-Request-Id", "known"))
		assert.Equal(t, []string{"known"}, w.Result().Header["X-Request-Id"], name)
	}
}

// Whatever is sent, the answer has one id of the shape that is promised.
func FuzzRequestID(f *testing.F) {
	for _, seed := range []string{"", "a", "a b", "\r\nX: y", "é", strings.Repeat("z", 130), "A-._9"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		w, r := httptest.NewRecorder(), get("/")
		r.Header["X-Request-Id"] = []string{sent}
		var inside string
		admit.RequestID(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			inside = admit.RequestIDFrom(r.Context())
		})).ServeHTTP(w, r)
		assert.Equal(t, []string{inside}, w.Header()["X-Request-Id"])
		assert.Regexp(t, `\A[A-Za-z0-9._-]{1,128}\z`, inside)
		if inside != sent {
			assert.NotRegexp(t, `\A[A-Za-z0-9._-]{1,128}\z`, sent, "a good id is kept")
		}
	})
}

// A gateway passes the id on that it gives, and the service keeps it: the client sees it
// once, and a bad one of the client goes nowhere.
func TestRequestIDThroughAGateway(t *testing.T) {
	t.Parallel()
	for _, wire := range wires {
		for _, sent := range []string{"", "known", "not good"} {
			t.Run(wire+" "+sent, func(t *testing.T) {
				t.Parallel()
				var upstream []string
				var logged string
				service := serve(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					upstream = r.Header["X-Request-Id"]
					admit.Policy{}.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						logged = admit.RequestIDFrom(r.Context())
					})).ServeHTTP(w, r)
				}))
				target, err := url.Parse(service.URL)
				require.NoError(t, err)
				proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
				gateway := serve(t, wire, admit.Policy{Timeout: time.Minute}.Wrap(proxy))
				var headers []string
				if sent != "" {
					headers = []string{"X-Request-Id", sent}
				}
				res, _ := do(t, gateway, "GET", "/", "", headers...)
				assert.Equal(t, []string{logged}, res.Header["X-Request-Id"])
				assert.Equal(t, []string{logged}, upstream)
				if sent == "known" {
					assert.Equal(t, sent, logged)
				} else {
					assert.Len(t, logged, 32)
				}
			})
		}
	}
}
