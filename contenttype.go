package admit

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/mediatype"
)

// ContentType rejects a request with 415 if its body is not of an allowed type, has a charset
// other than UTF-8, or is encoded (RFC 9110 §8.3, §8.4). A type is written as
// "application/json", "image/*" or "application/*+json", which does not include
// application/json itself. The response lists what is accepted in Accept, Accept-Post,
// Accept-Patch, Accept-Query or Accept-Encoding. In a Policy with Methods, the response to
// OPTIONS lists it too.
//
// Two Content-Type lines are 400. A request without a body passes, except a QUERY, which must
// have a Content-Type and gets 400 without one (RFC 10008 §2). ContentType panics without a
// type, and on a type that is malformed or given twice.
//
// If a request of unknown length has no Content-Type, its body may still turn out to be empty:
// chunked with nothing in it, or an empty DATA frame. ContentType then waits up to 300 ms for
// the first byte, and the request passes if the body ends instead. This needs a ResponseWriter
// whose read deadline can be set. Without one, such a request is rejected at once, and so is
// one with Expect: 100-continue, which announces a body.
func ContentType(allow ...string) Middleware {
	c, err := NewContentTypes(ContentTypesConfig{Allow: allow})
	must(renamed("ContentTypesConfig.Allow", "ContentType", err))
	return c.Wrap
}

// ContentTypesConfig configures NewContentTypes. Only Allow is required.
type ContentTypesConfig struct {
	// Allow lists the types that the handler accepts, as for ContentType. Required.
	Allow []string
	// Charsets lists the accepted values of the charset parameter. Default: utf-8, which may
	// also be spelled utf8.
	Charsets []string
	// Encodings lists the content codings, such as gzip, that the handler decodes. Default:
	// none. A body without a content coding is always accepted.
	Encodings []string
	// AllowMissing accepts a body without a Content-Type, and a QUERY without one.
	AllowMissing bool
}

// ContentTypes is the configurable form of ContentType. It is safe for concurrent use and may
// wrap any number of handlers.
type ContentTypes struct {
	given        []string
	allow        []mediatype.Pattern
	charsets     []string
	encodings    []string
	allowMissing bool

	exact    []string // the types of allow without a wildcard
	usual    []string // the parameters that clients usually write after them
	hints    []hint
	refusals [contentFaults]refusal
	encoding *Error
	made     made
}

// NewContentTypes returns a ContentTypes. The error lists every problem of the configuration;
// the ContentTypes that is returned with it cannot serve.
func NewContentTypes(config ContentTypesConfig) (*ContentTypes, error) {
	var f faults
	if len(config.Allow) == 0 {
		f.add("ContentTypesConfig.Allow", `has no type; name what the handler accepts, such as "application/json"`)
	}
	c := &ContentTypes{
		given:        slices.Clone(config.Allow),
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
	c.explain(config.Allow)
	return c, nil
}

func (c *ContentTypes) fault() error {
	if c == nil {
		return (*made)(nil).fault("ContentTypes")
	}
	return c.made.fault("ContentTypes")
}

// Wrap lets a request in to next if it has no body, or if Check accepts it.
func (c *ContentTypes) Wrap(next http.Handler) http.Handler {
	must(c.fault())
	return wrap("ContentType", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		err := c.Check(r)
		if err == nil {
			in.ServeHTTP(w, r)
			return
		}
		if err == error(c.refusals[faultMissing].of(r.Method)) && mayBeNone(w, r) {
			u := in.bound(w, r)
			defer u.leave()
			if err = none(u.body, err); err == nil {
				in.ServeHTTP(u.w, u.inner)
				return
			}
			w, r = u.w, u.inner
		}
		WriteError(w, r, err)
	})
}

// mayBeNone reports whether only a Read tells if r has a body, and that Read can be
// interrupted. A QUERY needs a Content-Type in any case.
func mayBeNone(w http.ResponseWriter, r *http.Request) bool {
	return r.ContentLength < 0 && r.Method != methodQuery && r.Header["Expect"] == nil && canWake(w)
}

// none returns nil if the body b is empty, and refusal if it is not, or if no byte comes in
// settleTime. The handler does not lose the byte, since it is not called in that case.
func none(b *body, refusal error) error {
	usual := b.timeout
	b.timeout = BodyTimeout{Grace: settleTime}
	defer func() { b.timeout = usual }()
	var first [1]byte
	for range 100 { // as many empty reads as bufio allows
		switch n, err := b.Read(first[:]); {
		case n > 0 || errors.Is(err, errBodyTooSlow):
			return refusal
		case err == io.EOF:
			return nil
		case err != nil:
			return bodyFault(err)
		}
	}
	return refusal
}

// Check returns nil, or the rejection as an *Error. It does not read the body and does not
// allocate. A body of unknown length counts as a body.
func (c *ContentTypes) Check(r *http.Request) error {
	if err := c.fault(); err != nil {
		return errInternal.WithCause(err)
	}
	if !hasBody(r) && r.Method != methodQuery {
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

// methodQuery is a safe method with a body (RFC 10008).
const methodQuery = "QUERY"

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

// check decides about the value of Content-Type.
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
		!slices.ContainsFunc(c.charsets, func(taken string) bool { return sameCharset(taken, charset) }) {
		return faultCharset
	}
	return faultNone
}

// sameCharset compares the names of charsets. Many clients write utf8, which is the name of no
// other charset.
func sameCharset(taken, charset string) bool {
	return mediatype.SameValue(taken, charset) ||
		strings.EqualFold(taken, "utf-8") && mediatype.SameValue("utf8", charset)
}

// decodes reports whether every coding is accepted (RFC 9110 §8.4).
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

// hint is a header that lists what a resource accepts in requests with a method. It is sent in
// rejections and in the response to OPTIONS.
type hint struct{ method, name, value string }

// explain makes the rejections. Each lists what is accepted, for people in its message and for
// programs in its header (RFC 9110 §15.5.16).
func (c *ContentTypes) explain(allow []string) {
	allowed := strings.Join(allow, ", ")
	c.hints = []hint{
		{http.MethodPost, "Accept-Post", allowed},
		{http.MethodPatch, "Accept-Patch", allowed}, // RFC 5789 §2.2, §3.1
		{methodQuery, "Accept-Query", acceptQuery(allow)},
	}
	for fault, message := range map[contentFault]string{
		faultMissing:   "The request has a body but no Content-Type; send one of: " + allowed + ".",
		faultMalformed: "The Content-Type is malformed; send one of: " + allowed + ".",
		faultType:      "The resource does not accept this content type; send one of: " + allowed + ".",
		faultCharset:   "The resource does not accept this charset; send " + strings.Join(c.charsets, " or ") + ".",
	} {
		c.refusals[fault] = newRefusal(message, allowed, c.hints)
	}
	untyped := NewError(http.StatusBadRequest, "A QUERY needs a Content-Type; send one of: "+allowed+".")
	untyped.Header = http.Header{"Accept-Query": {acceptQuery(allow)}}
	c.refusals[faultMissing][methodQuery] = untyped
	encodings := strings.Join(append(slices.Clone(c.encodings), "identity"), ", ")
	c.encoding = NewError(http.StatusUnsupportedMediaType,
		"The resource does not accept this content coding; send one of: "+encodings+".")
	c.encoding.Header = http.Header{"Accept-Encoding": {encodings}}
}

// acceptQuery returns the value of Accept-Query: a list of the tokens or strings of structured
// fields (RFC 10008 §3, RFC 9651 §3.3).
func acceptQuery(allow []string) string {
	var list []string
	for _, text := range allow {
		text = strings.Trim(text, " \t;")
		if first := text[0] | 0x20; first < 'a' || first > 'z' {
			text = mediatype.Quote(text)
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// refusal is a 415 for each method that has a hint; "" is for the other methods.
type refusal map[string]*Error

func newRefusal(message, allowed string, hints []hint) refusal {
	r := refusal{}
	for _, h := range append([]hint{{}}, hints...) {
		e := NewError(http.StatusUnsupportedMediaType, message)
		e.Header = http.Header{"Accept": {allowed}}
		if h.name != "" {
			e.Header[h.name] = []string{h.value}
		}
		r[h.method] = e
	}
	return r
}

func (r refusal) of(method string) *Error {
	if e := r[method]; e != nil {
		return e
	}
	return r[""]
}

// answers returns the rejections of requests with these methods; nil means any method.
func (c *ContentTypes) answers(methods []string) []Answer {
	takes := func(method string) bool { return methods == nil || slices.Contains(methods, method) }
	var hints []string
	for _, h := range c.hints {
		if takes(h.method) {
			hints = append(hints, h.name)
		}
	}
	all := []Answer{
		answer(errTwoContentTypes, "The request has more than one Content-Type header."),
		answer(c.refusals[faultType].of(""), "The resource does not accept request bodies of this media type.", hints...),
		answer(c.refusals[faultMalformed].of(""), "The Content-Type header is not a media type.", hints...),
		answer(c.refusals[faultCharset].of(""), "The resource does not accept request bodies in this charset.", hints...),
		answer(c.encoding, "The resource does not accept request bodies in this content coding."),
	}
	if c.allowMissing {
		return all
	}
	if takes(methodQuery) {
		all = append(all, answer(c.refusals[faultMissing].of(methodQuery), "A QUERY request has no Content-Type header."))
	}
	return append(all, answer(c.refusals[faultMissing].of(""), "The request has a body but no Content-Type header.", hints...))
}
