package admit

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/mediatype"
)

// Methods returns a middleware that admits requests with the given methods, which are
// case-sensitive (RFC 9110 §9.1). GET implies HEAD.
//
// Any other method gets 405 if it is in the IANA registry, and 501 if it is not, both with Allow.
// OPTIONS gets 204 with Allow, unless it is one of the given methods; then the handler gets it.
// If the handler is registered in a ServeMux with a method in its pattern, the mux responds to
// other methods before Methods does. In a Policy with ContentType or ContentTypes, the response
// to OPTIONS also has Accept-Post, Accept-Patch and Accept-Query, for those of the methods that
// are given (RFC 5789 §3.1, RFC 10008 §3).
//
// It panics without a method. It also panics on a method that is malformed, is given twice, or is
// registered but not in upper case.
func Methods(allow ...string) Middleware {
	m, err := newMethods(allow, nil)
	must(err)
	return m.wrap
}

func (m *methods) wrap(next http.Handler) http.Handler {
	return wrap("Methods", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		switch refusal := m.check(r.Method); {
		case refusal == nil:
			in.ServeHTTP(w, r)
		case refusal == m.options:
			m.answer(w, r)
		default:
			WriteError(w, r, refusal)
		}
	})
}

// answer responds to OPTIONS.
func (m *methods) answer(w http.ResponseWriter, r *http.Request) {
	if !beginAnswer(r.Context()) {
		return // it is late
	}
	defer endAnswer(r.Context())
	w.Header()["Allow"] = slices.Clone(m.allow)
	for _, h := range m.hints {
		w.Header()[h.name] = []string{h.value}
	}
	reply(w, r, http.StatusNoContent, nil)
}

// methods is the decision of Methods.
type methods struct {
	allowed    []string
	allow      []string // the value of Allow
	hints      []hint   // for the response to OPTIONS
	options    *Error   // stands for the response to OPTIONS, which is no error
	notAllowed *Error
	unknown    *Error
}

// newMethods returns the decision for the given methods. The hints may be for any methods.
func newMethods(allow []string, hints []hint) (*methods, error) {
	if len(allow) == 0 {
		return nil, configFault("Methods", `has no method; name those that the handler takes, such as "GET"`)
	}
	m := new(methods)
	var f faults
	for i, method := range allow {
		field, upper := fmt.Sprintf("Methods[%d]", i), strings.ToUpper(method)
		switch {
		case !mediatype.IsToken(method) || method == "*":
			f.add(field, "is %q, which is not a method", method)
		case slices.Contains(registeredMethods, upper) && method != upper:
			f.add(field, "is %q; methods are case-sensitive: write %q", method, upper)
		case slices.Contains(allow[:i], method):
			f.add(field, "is %q, which is given twice", method)
		}
		m.allowed = append(m.allowed, method)
		if method == http.MethodGet && !slices.Contains(allow, http.MethodHead) {
			m.allowed = append(m.allowed, http.MethodHead)
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	for _, h := range hints {
		if slices.Contains(allow, h.method) {
			m.hints = append(m.hints, h)
		}
	}
	listed := m.allowed
	if !slices.Contains(listed, http.MethodOptions) {
		listed = append(slices.Clone(listed), http.MethodOptions)
		m.options = new(Error)
	}
	m.allow = []string{strings.Join(listed, ", ")}

	m.notAllowed = NewError(http.StatusMethodNotAllowed, "The resource does not support this method. It supports "+m.allow[0]+".")
	m.notAllowed.Header = http.Header{"Allow": m.allow}
	m.unknown = NewError(http.StatusNotImplemented, "The service does not recognize this method. The resource supports "+m.allow[0]+".")
	m.unknown.Header = m.notAllowed.Header
	return m, nil
}

// check returns nil, options, or the refusal.
func (m *methods) check(method string) *Error {
	for _, allowed := range m.allowed {
		if allowed == method {
			return nil
		}
	}
	switch {
	case method == http.MethodOptions:
		return m.options
	case slices.Contains(registeredMethods, method):
		return m.notAllowed
	default:
		return m.unknown
	}
}

// registeredMethods is the IANA registry of HTTP methods (RFC 9110 §16.1.1).
var registeredMethods = []string{
	"ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD",
	"LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE",
	"MOVE", "OPTIONS", "ORDERPATCH", "PATCH", "POST", "PRI", "PROPFIND", "PROPPATCH", "PUT", "QUERY",
	"REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
	"UPDATEREDIRECTREF", "VERSION-CONTROL",
}

func (m *methods) answers() []Answer {
	return []Answer{
		answer(m.notAllowed, "The resource does not support the method of the request."),
		answer(m.unknown, "The service does not recognize the method of the request."),
	}
}
