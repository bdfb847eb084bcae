// Package page looks at pages of admit as those who read them do: in a browser, on small and
// large screens, in light and dark, and by keyboard.
package page

import (
	_ "embed"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

//go:embed testdata/sample.html
var sample string

// html is a page that has these bytes.
func html(page string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(page))
	})
}

// The views of which one is enough to show a fault of the sample.
var (
	small  = view{320, "light", false}
	dark   = view{320, "dark", false}
	opened = view{320, "light", true}
	large  = view{1440, "light", false}
)

// exampleViews are all of them where somebody wants to see them, else those in which each
// width, each scheme and each state of the details comes twice.
func exampleViews() []view {
	if os.Getenv("ADMIT_SCREENSHOTS") != "" {
		return views
	}
	return []view{opened, dark, {768, "light", false}, {1440, "dark", true}}
}

func TestPages(t *testing.T) {
	b := startBrowser(t)

	for _, shown := range []struct {
		name string
		http.Handler
		views []view
	}{
		{"sample", html(sample), []view{small, dark, opened, large}},
		{"example", exampleContract(t), exampleViews()},
		{"hostile", hostileContract(t), []view{{320, "light", true}, {1440, "dark", true}}},
	} {
		t.Run(shown.name, func(t *testing.T) {
			p := page{b, t, shown}
			for _, v := range shown.views {
				for _, f := range p.look(v) {
					t.Errorf("%s: %s: %s: %s", v, f.Rule, f.Where, f.What)
				}
				p.screenshot(v, shown.name)
			}
		})
	}

	t.Run("hostile texts are only texts", func(t *testing.T) { testHostile(t, b) })
	t.Run("what is broken is found", func(t *testing.T) { testBroken(t, b) })
}

// testBroken breaks the sample in one place, and wants that to be found.
func testBroken(t *testing.T, b *browser) {
	for _, broken := range []struct {
		name     string
		from, to string
		in       view
		rule     string
		notIn    view // where it is right, if there is such a view
	}{
		{name: "no language", from: ` lang="en"`, in: small, rule: "html-has-lang"},
		{name: "no title", from: "<title>Answers of a sample</title>", in: small, rule: "document-title"},
		{name: "contrast", from: "--text: #1b1f24", to: "--text: #8a8f96", in: small, rule: "color-contrast", notIn: dark},
		{name: "contrast in dark", from: "--text: #e6e8eb", to: "--text: #50555b", in: dark, rule: "color-contrast", notIn: small},
		{name: "contrast in details", from: "<code>", to: `<code style="color: #999">`, in: opened, rule: "color-contrast", notIn: small},
		{name: "contrast that axe cannot tell", from: "<code>", to: `<code style="background: linear-gradient(red, white)">`, in: opened, rule: "color-contrast"},
		{name: "no alternative text", from: ` alt="A price that rises"`, in: small, rule: "image-alt"},
		{name: "order of headings", from: `<h2 id="prices">Prices</h2>`, to: `<h4 id="prices">Prices</h4>`, in: small, rule: "heading-order"},
		{name: "no landmark", from: `<main id="answers">`, to: `<div id="answers">`, in: small, rule: "region"},
		{name: "small targets", from: `<li><a href="#prices">Prices</a></li>`, to: `<li style="line-height: 1; padding: 0"><a href="#prices">a</a></li><li style="line-height: 1; padding: 0"><a href="#answers">b</a></li>`, in: small, rule: "target-size"},
		{name: "scrolls", from: "overflow-x: auto", in: opened, rule: "scroll", notIn: large},
		{name: "no viewport", from: `<meta name="viewport" content="width=device-width, initial-scale=1">`, in: small, rule: "scroll", notIn: large},
		{name: "a script that throws", from: "</main>", to: "</main><script>throw new Error('no')</script>", in: small, rule: "console"},
		{name: "an error on the console", from: "</main>", to: "</main><script>console.error('no')</script>", in: small, rule: "console"},
		{name: "a policy that is broken", from: "<style>", to: `<meta http-equiv="Content-Security-Policy" content="script-src 'none'"><script>1</script><style>`, in: small, rule: "console"},
		{name: "another host", from: "<style>", to: "<style>html { background: url(http://192.0.2.1/) }", in: small, rule: "request"},
		{name: "a socket to another host", from: "</main>", to: "</main><script>new WebSocket('ws://192.0.2.1/')</script>", in: small, rule: "request"},
		{name: "no skip link", from: `<a class="skip" href="#answers">Skip to the answers</a>`, in: opened, rule: "skip-link-first"},
		{name: "a skip link to nowhere", from: `class="skip" href="#answers"`, to: `class="skip" href="#nowhere"`, in: opened, rule: "skip-link-first"},
		{name: "a hidden skip link", from: ".skip:focus {", to: ".skip:active {", in: opened, rule: "skip-link-first"},
		{name: "a skip link that does nothing", from: "<main", to: `<script>addEventListener("click", (e) => e.preventDefault())</script><main`, in: opened, rule: "skip-link-works"},
		{name: "no focus to see", from: "outline: 3px solid var(--link)", to: "outline: 0", in: opened, rule: "focus-visible"},
		{name: "a transparent focus", from: "outline: 3px solid var(--link)", to: "outline: 3px solid transparent", in: opened, rule: "focus-visible"},
		{name: "a ring that was there before", from: ":focus-visible {", to: "* {", in: opened, rule: "focus-visible"},
		{name: "out of reach of Tab", from: "<main", to: `<script>addEventListener("keydown", (e) => { if (document.activeElement.tagName === "SUMMARY") e.preventDefault() })</script><main`, in: opened, rule: "tab-reaches"},
	} {
		t.Run(broken.name, func(t *testing.T) {
			require.Equal(t, 1, strings.Count(sample, broken.from))
			p := page{b, t, html(strings.Replace(sample, broken.from, broken.to, 1))}
			found := p.look(broken.in)
			for _, f := range found {
				t.Logf("%s: %s: %s", f.Rule, f.Where, f.What)
			}
			assert.Contains(t, rules(found), broken.rule)
			if broken.notIn.width > 0 {
				assert.NotContains(t, rules(p.look(broken.notIn)), broken.rule)
			}
		})
	}
}

func rules(found []finding) (names []string) {
	for _, f := range found {
		names = append(names, f.Rule)
	}
	return names
}
