package contract

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/admit-go/admit"
)

// Page returns a handler that serves the contract: as HTML to a browser, as text/markdown or
// application/json to a client that asks for it, and as Markdown to a client that accepts
// anything, such as curl. It takes GET and HEAD, and answers other methods with 405. The page
// has no script and loads nothing. It is rendered once for each change of the contract, so
// that requests are cheap.
func (a *API) Page() http.Handler {
	negotiator, err := admit.NewNegotiator(admit.NegotiatorConfig{
		Offers: []string{"text/markdown", "text/html", "application/json"}, Fallback: "text/markdown",
	})
	if err != nil {
		panic(err) // never
	}
	return negotiator.Wrap(http.HandlerFunc(a.servePage))
}

// rendered is the contract in one media type.
type rendered struct {
	contentType string
	etag        string
	body        []byte
}

func (a *API) servePage(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		admit.MethodNotAllowed(w, r)
		return
	}
	page := a.rendered()[admit.MediaTypeFrom(r.Context())]
	h := w.Header()
	h.Set("Content-Type", page.contentType)
	h.Set("ETag", page.etag)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", pagePolicy)
	if etagMatches(r.Header["If-None-Match"], page.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(page.body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(page.body)
	}
}

// etagMatches reports whether the client has this page already (RFC 9110 §13.1.2).
func etagMatches(lines []string, etag string) bool {
	for _, line := range lines {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == etag || tag == "*" {
				return true
			}
		}
	}
	return false
}

// rendered returns the contract in each media type. It renders it again if routes have been
// added.
func (a *API) rendered() map[string]rendered {
	a.mu.Lock()
	pages := a.pages
	a.mu.Unlock()
	if pages != nil {
		return pages
	}
	a.rendering.Lock() // so that concurrent requests render it once
	defer a.rendering.Unlock()
	a.mu.Lock()
	pages, routes := a.pages, len(a.routes)
	a.mu.Unlock()
	if pages != nil {
		return pages
	}
	d := a.model().page()
	pages = map[string]rendered{
		"text/html":        newRendered("text/html; charset=utf-8", d.html()),
		"text/markdown":    newRendered("text/markdown; charset=utf-8", d.markdown()),
		"application/json": newRendered("application/json", d.json()),
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.routes) == routes { // else a route has been added meanwhile
		a.pages = pages
	}
	return pages
}

func newRendered(contentType string, body []byte) rendered {
	sum := sha256.Sum256(body)
	return rendered{contentType, `"` + hex.EncodeToString(sum[:12]) + `"`, body}
}

func (d pageDoc) json() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(struct {
		Result string  `json:"result"`
		Data   pageDoc `json:"data"`
	}{"success", d}); err != nil {
		panic(err) // never: New has checked SecurityScheme.Flows
	}
	return b.Bytes()
}

var (
	//go:embed page.css
	pageStyle string
	//go:embed page.html
	pageText string

	// pagePolicy allows the style of the page, and nothing else.
	pagePolicy = func() string {
		sum := sha256.Sum256([]byte(pageStyle))
		return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	}()

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
		"css":        func() template.CSS { return template.CSS(pageStyle) },
		"class":      func(status int) int { return status / 100 },
		"anchor":     anchor,
		"codeid":     func(status int, code string) string { return fmt.Sprintf("%d %s", status, code) },
		"join":       func(list []string) string { return strings.Join(list, ", ") },
		"upper":      func(s string) string { return strings.ToUpper(s[:1]) + s[1:] },
		"paragraphs": paragraphs,
		"headers":    headerLines,
		"pretty":     pretty,
	}).Parse(pageText))
)

func (d pageDoc) html() []byte {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, d); err != nil {
		panic(err) // never: the template is ours
	}
	return b.Bytes()
}

// anchor returns an id for an element, in ASCII without spaces. Different texts have different
// ids.
func anchor(text string) string {
	var b strings.Builder
	b.WriteString("x")
	for _, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
			b.WriteByte(c)
		case c == ' ':
			b.WriteByte('-')
		default:
			fmt.Fprintf(&b, ".%02x", c)
		}
	}
	return b.String()
}

func paragraphs(text string) []string {
	var all []string
	for p := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n") {
		if p = strings.TrimSpace(p); p != "" {
			all = append(all, p)
		}
	}
	return all
}

// headerLines returns the headers of an example as HTTP/1.1 sends them.
func headerLines(e Example) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(e.Header)) {
		for _, value := range e.Header[name] {
			b.WriteString(name + ": " + value + "\n")
		}
	}
	return b.String()
}

// pretty returns the body of an example, indented if it is JSON.
func pretty(e Example) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(e.Body), "", "  ") != nil {
		return e.Body
	}
	return strings.TrimSpace(b.String())
}
