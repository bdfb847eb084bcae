package browsers

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
)

// send is what a page does. It says what the page may see of the answer.
const send = `async (url, options) => {
	try {
		const r = await fetch(url, options);
		const seen = ["Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id"].filter(name => r.headers.has(name));
		return [r.status, (await r.json()).code, ...seen].join(" ");
	} catch (e) {
		return e.name;
	}
}`

// A page in a real browser reads what the guide says, and nothing without CORS.
func TestBrowser(t *testing.T) {
	t.Parallel()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(servers.Program(t, "chromium")), chromedp.ProxyServer("127.0.0.1:1"))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(stop)

	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<!doctype html><title>A page</title>")
	}))
	t.Cleanup(page.Close)
	app, evil := page.URL, strings.Replace(page.URL, "127.0.0.1", "localhost", 1)

	h, err := newAPI(keys(), app)
	require.NoError(t, err)
	api := testkit.Serve(t, testkit.HTTP1, h)
	without := testkit.Serve(t, testkit.HTTP1, admit.APIKey(keys())(http.NotFoundHandler()))
	h, err = newCookieAPI(keys(), app)
	require.NoError(t, err)
	seen := make(chan int, 10)
	cookies := testkit.Serve(t, testkit.HTTP1, admit.Observe(func(_ *http.Request, o admit.Outcome) { seen <- o.Status })(h))

	for _, step := range []struct{ page, url, options, want string }{
		{app, api.URL + "/orders", `{method: "POST", headers: {"X-API-Key": "guess"}}`, "401 key_invalid X-Request-Id"},
		{app, api.URL + "/orders", `{method: "POST", headers: {"X-API-Key": "s3cret"}}`, "201  RateLimit RateLimit-Policy X-Request-Id"},
		{app, api.URL + "/orders", `{method: "POST", headers: {"X-API-Key": "s3cret"}}`, "201  RateLimit RateLimit-Policy X-Request-Id"},
		{app, api.URL + "/orders", `{method: "POST", headers: {"X-API-Key": "s3cret"}}`, "429 rate_limited Retry-After RateLimit RateLimit-Policy X-Request-Id"},
		{app, without.URL + "/orders", `{method: "POST"}`, "TypeError"},
		{app, api.URL + "/orders", `{method: "PUT", headers: {"X-API-Key": "s3cret"}}`, "TypeError"}, // no method of the preflight
		{evil, api.URL + "/orders", `{method: "POST"}`, "TypeError"},
	} {
		assert.Equal(t, step.want, fetch(t, ctx, step.page, step.url, step.options), "%s %s", step.url, step.options)
	}

	for _, step := range []struct {
		page, path, want string
		status           int
	}{
		{app, "/orders", "401 key_missing X-Request-Id", 401},
		{app, "/sign-in", "SyntaxError", 200}, // without a body
		{app, "/orders", "201  X-Request-Id", 201},
		{evil, "/orders", "TypeError", 403},
	} {
		assert.Equal(t, step.want, fetch(t, ctx, step.page, cookies.URL+step.path, `{method: "POST", credentials: "include"}`), step.path)
		assert.Equal(t, step.status, <-seen)
	}
}

func fetch(t *testing.T, ctx context.Context, page, url, options string) string {
	t.Helper()
	_, err := chromedp.RunResponse(ctx, chromedp.Navigate(page))
	require.NoError(t, err)
	answer, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("(%s)(%q, %s)", send, url, options), chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	return answer
}
