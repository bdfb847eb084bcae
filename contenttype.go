package admit

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/mediatype"
)

// ContentType answers 415 to a request whose body is not of an allowed type, such
// as "application/json", "image/*" or "application/*+json" (which is not
// application/json itself), is not in UTF-8, or is encoded (RFC 9110 §8.3, §8.4).
// The refusal says in Accept, Accept-Post, Accept-Patch or Accept-Encoding what is
// taken. Two Content-Type lines are 400. A request without a body passes. It panics
// without a type, and on one that is malformed or given twice.
func ContentType(allow ...string) Middleware {
	c, err := NewContentTypes(ContentTypesConfig{Allow: allow})
	must(renamed("ContentTypesConfig.Allow", "ContentType", err))
	return c.Wrap
}

// ContentTypesConfig is what NewContentTypes needs.
type ContentTypesConfig struct {
	// Allow are the types that the handler takes, as for ContentType.
	Allow []string
	// Charsets are what a charset parameter may say. Nil: utf-8.
	Charsets []string
	// Encodings are the content codings, such as gzip, that the handler decodes.
	// Nil: none. A body without one is always taken.
	Encodings []string
	// AllowMissing takes a body without a Content-Type.
	AllowMissing bool
}

// ContentTypes is the configured form of ContentType. It is read-only: any number
// of goroutines may use it, and it may wrap any number of handlers.
type ContentTypes struct {
	allow        []mediatype.Pattern
	charsets     []string
	encodings    []string
	allowMissing bool

	exact    []string // the types of allow without a wildcard
	usual    []string // what clients write after them
	refusals [contentFaults]refusal
	encoding *Error
	made     made
}

// NewContentTypes returns a ContentTypes. The error has every fault of the configuration;
// the ContentTypes that comes with it cannot serve.
func NewContentTypes(config ContentTypesConfig) (*ContentTypes, error) {
	var f faults
	if len(config.Allow) == 0 {
		f.add("ContentTypesConfig.Allow", `has no type; name what the handler takes, such as "application/json"`)
	}
	c := &ContentTypes{
		charsets:     slices.Clone(config.Charsets),
		encodings:    slices.Clone(config.Encodings),
		allowMissing: config.AllowMissing,
		made:         made{ok: true},
	}
	if len(c.charsets) == 0 {
		c.charsets = []string{"utf-8"}
	}
	for i, text := range config.Allow {
		p, err := mediatype.ParsePattern(text)
		if err == nil && containsFold(config.Allow[:i], text) {
			err = errors.New("is given twice")
		}
		if err != nil {
			f.add(fmt.Sprintf("ContentTypesConfig.Allow[%d]", i), "is %q, which %v", text, err)
		}
		c.allow = append(c.allow, p)
		if name, ok := p.Exact(); ok {
			c.exact = append(c.exact, name)
		}
	}
	for i, charset := range c.charsets {
		if !mediatype.IsToken(charset) || charset == "*" {
			f.add(fmt.Sprintf("ContentTypesConfig.Charsets[%d]", i), "is %q, which is not the name of a charset, such as utf-8", charset)
		}
	}
	for i, encoding := range c.encodings {
		if !mediatype.IsToken(encoding) || encoding == "*" || strings.EqualFold(encoding, "identity") {
			f.add(fmt.Sprintf("ContentTypesConfig.Encodings[%d]", i), "is %q, which is not the name of a content coding, such as gzip", encoding)
		}
	}
	if err := f.err(); err != nil {
		return &ContentTypes{made: made{err: err}}, err
	}
	for _, charset := range c.charsets {
		for _, spelled := range []string{charset, strings.ToUpper(charset)} {
			c.usual = append(c.usual, "; charset="+spelled, ";charset="+spelled)
		}
	}
	c.explain(strings.Join(config.Allow, ", "))
	return c, nil
}

func (c *ContentTypes) fault() error {
	if c == nil {
		return (*made)(nil).fault("ContentTypes")
	}
	return c.made.fault("ContentTypes")
}

// Wrap lets a request in to next if it has no body, or one that Check takes.
func (c *ContentTypes) Wrap(next http.Handler) http.Handler {
	must(c.fault())
	return wrap("ContentType", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if err := c.Check(r); err != nil {
			WriteError(w, r, err)
			return
		}
		in.ServeHTTP(w, r)
	})
}

// Check returns nil, or the refusal as an *Error. It reads nothing from the body and
// allocates nothing.
func (c *ContentTypes) Check(r *http.Request) error {
	if err := c.fault(); err != nil {
		return errInternal.WithCause(err)
	}
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	fault := faultMissing
	switch lines := r.Header["Content-Type"]; {
	case len(lines) > 1:
		return errTwoContentTypes
	case len(lines) == 1:
		fault = c.check(lines[0])
	case c.allowMissing:
		fault = faultNone
	}
	if fault != faultNone {
		return c.refusals[fault].of(r.Method)
	}
	if codings := r.Header["Content-Encoding"]; len(codings) > 0 && !c.decodes(codings) {
		return c.encoding
	}
	return nil
}

var errTwoContentTypes = NewError(http.StatusBadRequest, "The request has more than one Content-Type.")

type contentFault int

const (
	faultNone contentFault = iota
	faultMissing
	faultMalformed
	faultType
	faultCharset
	contentFaults // how many there are
)

// check is the decision about the value of Content-Type.
func (c *ContentTypes) check(value string) contentFault {
	for _, name := range c.exact { // most values need no parsing
		if after, ok := strings.CutPrefix(value, name); ok && (after == "" || slices.Contains(c.usual, after)) {
			return faultNone
		}
	}
	t, err := mediatype.Parse(value)
	if err != nil || t.HasWildcard() {
		return faultMalformed
	}
	if !slices.ContainsFunc(c.allow, func(p mediatype.Pattern) bool { return p.Matches(t) }) {
		return faultType
	}
	if charset, ok := t.Param("charset"); ok &&
		!slices.ContainsFunc(c.charsets, func(taken string) bool { return mediatype.SameValue(taken, charset) }) {
		return faultCharset
	}
	return faultNone
}

// decodes reports whether every coding is taken (RFC 9110 §8.4).
func (c *ContentTypes) decodes(lines []string) bool {
	for _, line := range lines {
		for coding := range strings.SplitSeq(line, ",") {
			coding = strings.Trim(coding, " \t")
			taken := func(encoding string) bool { return strings.EqualFold(encoding, coding) }
			if coding != "" && !taken("identity") && !slices.ContainsFunc(c.encodings, taken) {
				return false
			}
		}
	}
	return true
}

// explain makes the refusals. Each names what is taken, for people in its message
// and for programs in its header (RFC 9110 §15.5.16).
func (c *ContentTypes) explain(allowed string) {
	for fault, message := range map[contentFault]string{
		faultMissing:   "The request has a body but no Content-Type; send one of: " + allowed + ".",
		faultMalformed: "The Content-Type is malformed; send one of: " + allowed + ".",
		faultType:      "The content type of the request is not taken here; send one of: " + allowed + ".",
		faultCharset:   "The charset of the request is not taken here; send " + strings.Join(c.charsets, " or ") + ".",
	} {
		c.refusals[fault] = newRefusal(message, allowed)
	}
	encodings := strings.Join(append(slices.Clone(c.encodings), "identity"), ", ")
	c.encoding = NewError(http.StatusUnsupportedMediaType,
		"The content coding of the request is not taken here; send one of: "+encodings+".")
	c.encoding.Header = http.Header{"Accept-Encoding": {encodings}}
}

// refusal is a 415 with the hints that the method asks for.
type refusal struct{ other, post, patch *Error }

func newRefusal(message, allowed string) refusal {
	hinting := func(names ...string) *Error {
		e := NewError(http.StatusUnsupportedMediaType, message)
		e.Header = make(http.Header)
		for _, name := range names {
			e.Header.Set(name, allowed)
		}
		return e
	}
	return refusal{
		other: hinting("Accept"),
		post:  hinting("Accept", "Accept-Post"),
		patch: hinting("Accept", "Accept-Patch"), // RFC 5789 §2.2
	}
}

func (r refusal) of(method string) *Error {
	switch method {
	case http.MethodPost:
		return r.post
	case http.MethodPatch:
		return r.patch
	}
	return r.other
}
