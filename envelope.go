package admit

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/admit-go/admit/internal/mediatype"
	"github.com/admit-go/admit/internal/published"
)

// appendEnvelope appends the JSON body of an error. The order of the members is part of the
// contract: result, message, code, and then those that are not empty.
func appendEnvelope(b []byte, e *Error, requestID string) []byte {
	b = append(b, `{"result":"error","message":`...)
	b = appendString(b, e.Message)
	return appendMembers(b, e, requestID, "limits")
}

// appendProblem appends the error as problem details (RFC 9457 §3.1). The other members of the
// envelope are extension members. The type is about:blank, because the code tells problems
// apart, unless Meta has a type or a limit is exceeded (draft-ietf-httpapi-ratelimit-headers-11
// §6).
func appendProblem(b []byte, e *Error, requestID string) []byte {
	kind, _ := e.Meta["type"].(string)
	switch {
	case kind != "":
	case len(e.limits) > 0:
		kind = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	default:
		kind = "about:blank"
	}
	b = append(b, `{"type":`...)
	b = appendString(b, kind)
	b = append(b, `,"title":`...)
	b = appendString(b, published.Title(e.Status))
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = append(b, `,"detail":`...)
	b = appendString(b, e.Message)
	return appendMembers(b, e, requestID, "violated-policies")
}

// prefersProblem reports whether the client names application/problem+json with a higher weight
// than application/json, or without naming application/json.
func prefersProblem(r *http.Request) bool {
	accept := r.Header["Accept"]
	for _, line := range accept {
		if strings.IndexByte(line, '+') >= 0 { // most headers have none: they are not parsed
			return mediatype.Prefers(accept, problemMediaType, jsonMediaType)
		}
	}
	return false
}

var (
	problemMediaType, _ = mediatype.Parse("application/problem+json")
	jsonMediaType, _    = mediatype.Parse("application/json")
)

// appendMembers appends the members that both forms have. The exceeded limits have a different
// name in each.
func appendMembers(b []byte, e *Error, requestID, limits string) []byte {
	b = append(b, `,"code":`...)
	b = appendString(b, e.Code)
	if requestID != "" {
		b = append(b, `,"request_id":`...)
		b = appendString(b, requestID)
	}
	if n := e.retrySeconds(); n > 0 {
		b = append(b, `,"retry_after":`...)
		b = strconv.AppendInt(b, n, 10)
	}
	if len(e.Fields) > 0 {
		b = append(b, `,"errors":`...)
		for i, f := range e.Fields {
			b = append(b, "[,"[min(i, 1)])
			b = append(b, `{"path":`...)
			b = appendString(b, f.Path)
			b = append(b, `,"code":`...)
			b = appendString(b, f.Code)
			b = append(b, `,"message":`...)
			b = appendString(b, f.Message)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	if len(e.limits) > 0 {
		b = append(append(append(b, `,"`...), limits...), `":`...)
		for i, name := range e.limits {
			b = append(b, "[,"[min(i, 1)])
			b = appendString(b, name)
		}
		b = append(b, ']')
	}
	if len(e.Meta) > 0 {
		b = appendMeta(b, e.Meta)
	}
	return append(b, '}', '\n')
}

// appendMeta appends the members of meta, sorted by name. A member that cannot be encoded, or
// whose name the contract reserves, is left out: the error is still sent.
func appendMeta(b []byte, meta map[string]any) []byte {
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		switch name {
		case "result", "message", "code", "request_id", "retry_after", "errors", "type", "title", "status", "detail":
			continue
		}
		value, err := json.Marshal(meta[name])
		if err != nil {
			continue
		}
		b = append(b, ',')
		b = appendString(b, name)
		b = append(b, ':')
		b = append(b, value...)
	}
	return b
}

// appendString appends s as a JSON string (RFC 8259 §7). Bytes that are not UTF-8
// become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// appendValue appends data as JSON, without escapes meant for HTML.
func appendValue(b []byte, data any) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		return b, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// buffers hold bodies on their way to the client. A buffer of unusual size is not kept, or it
// would hold its memory forever.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

func putBuffer(b *[]byte) {
	if cap(*b) <= 64<<10 {
		buffers.Put(b)
	}
}
