package page

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/servers"
)

//go:embed page.js
var pageScript string

// browser is a headless Chromium with axe-core, and one tab: to make another takes longer
// than to look at a page.
//
// It is driven by chromedp: a page is served by a handler of this process, and the test that
// looks at it is of this process too, without a script in Node between them. chromedp adds
// three modules; puppeteer-core depends on six packages, and needs a protocol of our own between Go and Node.
type browser struct {
	ctx context.Context
	axe string
	url *url.URL // of whatever page is looked at

	mu    sync.Mutex
	shown http.Handler
	heard []finding // of the page by itself, while it loaded or ran
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	chromium := servers.Program(t, "chromium")
	axe, err := os.ReadFile(filepath.Join(servers.InstallNPM(t, "axe"), "node_modules", "axe-core", "axe.min.js"))
	require.NoError(t, err)

	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium),
		// Whatever is not on 127.0.0.1 is asked of a proxy that is not there.
		chromedp.ProxyServer("127.0.0.1:1"),
	)
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to be root with one
	}
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	// Chromium may be newer than the protocol that chromedp knows, and send events that are
	// not in it. An action that fails returns its error.
	ctx, stop = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(stop)
	require.NoError(t, chromedp.Do(ctx, command(emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})))
	b := &browser{axe: string(axe)}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	b.url, err = url.Parse(server.URL + "/")
	require.NoError(t, err)
	require.NoError(t, chromedp.Listen(ctx, b.listen))
	b.ctx, stop = context.WithTimeout(ctx, 2*time.Minute) // for a page that never ends
	t.Cleanup(stop)
	return b
}

// command is an action that is one command of the protocol.
func command[P any](c cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, c, params)
		return err
	})
}

// ServeHTTP is the server of every page. It outlives them, since Chromium asks for an icon
// when it pleases.
func (b *browser) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/favicon.ico" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	b.mu.Lock()
	page := b.shown
	b.mu.Unlock()
	page.ServeHTTP(w, r)
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requested(e.Request.URL)
	case *network.EventWebSocketCreated:
		b.requested(e.URL)
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if thrown := e.ExceptionDetails.Exception; thrown != nil {
			text += " " + thrown.Description
		}
		b.hear("console", text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
			text := ""
			for _, arg := range e.Args {
				text += string(arg.Value) + arg.Description + " "
			}
			b.hear("console", text)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError {
			b.hear("console", e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

func (b *browser) requested(to string) {
	if u, err := url.Parse(to); err != nil || (u.Host != b.url.Host && u.Scheme != "data") {
		b.hear("request", to)
	}
}

func (b *browser) hear(rule, what string) {
	b.heard = append(b.heard, finding{Rule: rule, Where: "the page", What: what})
}

// colours reports whether to judge colours in the view, which takes most of the time. What is
// seen with <details> closed is also seen with them open; at one width both are looked at.
func (v view) colours() bool { return v.open || v.width == 320 }

// keyboard reports whether to go through the page by keyboard: where everything that can have
// the focus is there, in the narrowest layout and in the widest, and once in each scheme.
func (v view) keyboard() bool {
	return v == view{320, "light", true} || v == view{1440, "dark", true}
}

// finding is one fault of a page.
type finding struct {
	Rule  string `json:"rule"` // of axe, or of the checks here
	Where string `json:"where"`
	What  string `json:"what"`
}

// view is one way to look at a page.
type view struct {
	width  int64
	scheme string // of prefers-color-scheme
	open   bool   // all <details>
}

// views are those in which a page has to be right.
var views = func() (all []view) {
	for _, width := range []int64{320, 768, 1440} {
		for _, scheme := range []string{"light", "dark"} {
			all = append(all, view{width, scheme, false}, view{width, scheme, true})
		}
	}
	return all
}()

func (v view) String() string {
	name := fmt.Sprintf("%d-%s", v.width, v.scheme)
	if v.open {
		name += "-open"
	}
	return name
}

// page is a page for the browser to look at.
type page struct {
	*browser
	t       *testing.T
	handler http.Handler
}

// look loads the page in a view and returns what is wrong with it there.
func (p page) look(v view) []finding {
	p.t.Helper()
	p.load(v)
	found := ask[[]finding](p, fmt.Sprintf("admitPage.axe(%t)", v.colours()))
	found = append(found, ask[[]finding](p, fmt.Sprintf("admitPage.overflow(%d)", v.width))...)
	if v.keyboard() {
		found = append(found, p.keyboard()...)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return append(found, p.heard...)
}

// load shows the page in a view.
func (p page) load(v view) {
	p.t.Helper()
	p.mu.Lock()
	p.shown, p.heard = p.handler, nil
	p.mu.Unlock()
	require.NoError(p.t, chromedp.Do(p.ctx,
		chromedp.EmulateViewport(v.width, v.width*3/4, func(metrics *emulation.SetDeviceMetricsOverrideParams, _ *emulation.SetTouchEmulationEnabledParams) {
			metrics.Mobile = v.width < 500
		}),
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: v.scheme}},
		}),
	))
	response, err := chromedp.RunResponse(p.ctx, chromedp.Navigate(p.url.String()))
	require.NoError(p.t, err)
	require.EqualValues(p.t, http.StatusOK, response.Status)
	// The protocol runs scripts also where the policy of the page allows none.
	require.NoError(p.t, chromedp.Do(p.ctx, chromedp.Evaluate[chromedp.Void](p.axe), chromedp.Evaluate[chromedp.Void](pageScript)))
	ask[any](p, fmt.Sprintf("admitPage.open(%t)", v.open))
}

// keyboard goes through the page by Tab alone, and then by the skip link.
func (p page) keyboard() (found []finding) {
	p.t.Helper()
	for range ask[int](p, "admitPage.watch()") {
		p.tab()
	}
	found = append(ask[[]finding](p, "admitPage.tabbed()"), ask[[]finding](p, "admitPage.missed()")...)
	if ask[bool](p, "admitPage.focusSkipLink()") {
		require.NoError(p.t, chromedp.Do(p.ctx, chromedp.KeyEvent(kb.Enter)))
		p.tab()
		found = append(found, ask[[]finding](p, "admitPage.skipped()")...)
	}
	return found
}

// tab presses Tab, and does not let go: that would be another event for each of hundreds.
func (p page) tab() {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, command(input.DispatchKeyEvent, input.DispatchKeyEventParams{
		Type: input.DispatchKeyEventTypeRawKeyDown, Key: "Tab", Code: "Tab", WindowsVirtualKeyCode: 9,
	})))
}

// screenshot writes the whole page in a view, before anybody has touched it, to the folder in
// ADMIT_SCREENSHOTS.
func (p page) screenshot(v view, name string) {
	p.t.Helper()
	folder := os.Getenv("ADMIT_SCREENSHOTS")
	if folder == "" {
		return
	}
	p.load(v)
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	require.NoError(p.t, err)
	require.NoError(p.t, os.MkdirAll(folder, 0o755))
	require.NoError(p.t, os.WriteFile(filepath.Join(folder, name+"-"+v.String()+".png"), png, 0o644))
}

// ask evaluates an expression in the page.
func ask[T any](p page, expression string) T {
	p.t.Helper()
	answer, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(p.t, err, expression)
	return answer
}
