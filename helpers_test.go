package admit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/testkit"
)

// envelope is the body of an error as a client reads it.
type envelope struct {
	Result     string             `json:"result"`
	Message    string             `json:"message"`
	Code       string             `json:"code"`
	RequestID  string             `json:"request_id"`
	RetryAfter int64              `json:"retry_after"`
	Limits     []string           `json:"limits"`
	Errors     []admit.FieldError `json:"errors"`
	UpgradeURL string             `json:"upgrade_url"`
}

// readEnvelope checks what holds for every error, and returns its body.
func readEnvelope(t testing.TB, status int, h http.Header, body []byte) envelope {
	t.Helper()
	assert.Equal(t, []string{"application/json"}, h["Content-Type"], "body: %s", body)
	assert.Equal(t, []string{"nosniff"}, h["X-Content-Type-Options"])
	assert.Equal(t, []string{"no-store"}, h["Cache-Control"])
	require.True(t, bytes.HasPrefix(body, []byte(`{"result":"error","message":"`)), "body: %s", body)
	var e envelope
	require.NoError(t, json.Unmarshal(body, &e), "body: %s", body)
	assert.Equal(t, "error", e.Result)
	assert.NotEmpty(t, e.Message)
	assert.Regexp(t, `^[a-z_]+$`, e.Code)
	assert.GreaterOrEqual(t, status, 400)
	return e
}

// refused drives h with r and returns the error it answers with.
func refused(t testing.TB, h http.Handler, r *http.Request, status int) (envelope, http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, status, w.Code, "body: %s", w.Body)
	return readEnvelope(t, w.Code, w.Header(), w.Body.Bytes()), w.Header()
}

func get(path string, headers ...string) *http.Request {
	return newRequest(http.MethodGet, path, "", headers...)
}

// newRequest makes a request; headers are names and values in turn.
func newRequest(method, path, body string, headers ...string) *http.Request {
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, content)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// answer is a handler that says so.
func answer(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// logged is a logger, and what it has written.
func logged() (*slog.Logger, *testkit.Buffer) {
	var b testkit.Buffer
	return slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), &b
}

// discard is a response writer that allocates nothing.
type discard struct{ h http.Header }

func newDiscard() *discard { return &discard{h: make(http.Header, 16)} }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// allocs requires that one call of f allocates at most limit times.
func allocs(t *testing.T, limit float64, f func()) {
	t.Helper()
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	got := testing.AllocsPerRun(200, f)
	assert.LessOrEqual(t, got, limit, "allocations")
}

var ok = answer(http.StatusOK)

// allowed drives h with r, which must be let in.
func allowed(t testing.TB, h http.Handler, r *http.Request) http.Header {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code, "body: %s", w.Body)
	return w.Header()
}

var discardLogs = slog.New(slog.DiscardHandler)

// panicOf returns what f panics with, as text; "" if it does not.
func panicOf(f func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}
