package errors

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/internal/testkit"
)

func TestPage(t *testing.T) {
	t.Parallel()
	s := testkit.Serve(t, testkit.HTTP1, newShop(slog.New(slog.DiscardHandler), nil))
	guide.Run(t, "errors", s.URL, t.TempDir())
}

func post(article, language string) *http.Request {
	r := httptest.NewRequest("POST", "/orders", strings.NewReader(`{"article":"`+article+`","quantity":1}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept-Language", language)
	return r
}

// The cause of a 500 is logged, and not sent; Observe hears of each error; a 4xx is logged
// by the AccessLog alone, with what the service knows of it.
func TestLogs(t *testing.T) {
	t.Parallel()
	var log, access bytes.Buffer
	var codes []string
	plain := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	shop := newShop(slog.New(slog.NewTextHandler(&log, plain)), func(_ *http.Request, e *admit.Error) { codes = append(codes, e.Code) })
	h := admit.AccessLog(slog.New(slog.NewTextHandler(&access, plain)))(shop)

	w := httptest.NewRecorder()
	h.ServeHTTP(w, post("table", ""))
	assert.Equal(t, 500, w.Code)
	assert.NotContains(t, w.Body.String(), "10.0.0.7")
	id := regexp.MustCompile(`[0-9a-f]{32}`)
	shown := guide.Blocks(t, "errors", "text")[0]
	assert.Equal(t, id.ReplaceAllString(shown, "ID"), id.ReplaceAllString(log.String(), "ID"))
	log.Reset()

	w = httptest.NewRecorder()
	h.ServeHTTP(w, post("chair", ""))
	assert.Equal(t, 409, w.Code)
	assert.Empty(t, log.String())
	assert.Contains(t, access.String(), `error.type=sold_out error="place chair: stock: empty"`)

	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/report", nil))
	assert.Equal(t, 500, w.Code)
	assert.Contains(t, log.String(), `text="pq: relation`)
	assert.Equal(t, []string{"internal", "sold_out", "internal"}, codes)
}

// Which Error of a chain is sent, and what of it is logged.
func TestWhichError(t *testing.T) {
	t.Parallel()
	inner := admit.NewError(http.StatusTeapot, "inner")
	for name, test := range map[string]struct {
		err    error
		status int
		logged bool
	}{
		"wrapped":               {fmt.Errorf("in a cache: %w", errSoldOut), 409, false},
		"an Error in an Error":  {errSoldOut.WithCause(inner), 409, false},
		"5xx with a cause":      {admit.NewError(http.StatusServiceUnavailable, "").WithCause(errors.New("down")), 503, true},
		"5xx without a cause":   {admit.NewError(http.StatusServiceUnavailable, ""), 503, false},
		"not known":             {errors.New("down"), 500, true},
		"out of time":           {context.DeadlineExceeded, 503, true},
		"a status that is none": {&admit.Error{Status: 200}, 500, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			ew := &admit.ErrorWriter{Logger: slog.New(slog.NewTextHandler(&log, nil))}
			w := httptest.NewRecorder()
			ew.Wrap(admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return test.err })).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			assert.Equal(t, test.status, w.Code)
			assert.Equal(t, test.logged, log.Len() > 0, log.String())
		})
	}
	assert.ErrorIs(t, errSoldOut.WithCause(inner), errSoldOut)
}

func TestTranslated(t *testing.T) {
	t.Parallel()
	h := admit.Policy{Errors: &admit.ErrorWriter{Map: toAdmit, Encode: translated}}.Wrap(admit.HandlerFunc(createOrder))
	for language, want := range map[string]string{"": "The article is sold out.", "de-CH, en;q=0.5": "Der Artikel ist ausverkauft."} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, post("chair", language))
		var body struct {
			Result, Message, Code string
			RequestID             string `json:"request_id"`
			Restock               string `json:"restock_url"`
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
		assert.Equal(t, 409, w.Code)
		assert.Equal(t, want, body.Message)
		assert.Equal(t, "error sold_out https://shop.example.com/restock", body.Result+" "+body.Code+" "+body.Restock)
		assert.Equal(t, w.Header().Get("X-Request-Id"), body.RequestID)
	}
	_, body := translated(post("chair", ""), &admit.Error{Status: 429, RetryAfter: 1500 * time.Millisecond, Fields: []admit.FieldError{{Path: "a"}}})
	assert.Contains(t, string(body), `"retry_after":2`)
	assert.Contains(t, string(body), `"path":"a"`)
	contentType, _ := translated(post("chair", ""), &admit.Error{Meta: map[string]any{"no": func() {}}})
	assert.Equal(t, "text/plain; charset=utf-8", contentType)
}

func TestProblem(t *testing.T) {
	t.Parallel()
	h := newShop(slog.New(slog.DiscardHandler), nil)
	for accept, want := range map[string]string{
		"":                         "application/json",
		"*/*":                      "application/json",
		"application/problem+json": "application/problem+json",
		"application/json, application/problem+json;q=0.5": "application/json",
	} {
		r := post("chair", "")
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, want, w.Header().Get("Content-Type"), accept)
	}
}

// A body that breaks off is the client's fault where something knows that it is the body.
func TestBrokenBody(t *testing.T) {
	t.Parallel()
	read := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := io.ReadAll(r.Body)
		return err
	})
	for status, h := range map[int]http.Handler{500: admit.Recover(read), 400: admit.MaxBody(1 << 10)(read)} {
		s := testkit.Serve(t, testkit.HTTP1, (&admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}).Wrap(h))
		c := testkit.Dial(t, s)
		_, err := fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno chunk\r\n")
		require.NoError(t, err)
		res, _ := testkit.Answer(t, bufio.NewReader(c))
		assert.Equal(t, status, res.StatusCode)
	}
}

// What begins as a success is cut, so that no client takes a part for the whole.
func TestErrorAfterTheFirstByte(t *testing.T) {
	t.Parallel()
	s := testkit.Serve(t, testkit.HTTP1, (&admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}).Wrap(admit.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = fmt.Fprint(w, strings.Repeat("x", 8<<10))
		return errors.New("the rest cannot be read")
	})))
	res, err := http.Get(s.URL)
	require.NoError(t, err)
	defer res.Body.Close()
	_, err = new(bytes.Buffer).ReadFrom(res.Body)
	assert.Error(t, err)
}
