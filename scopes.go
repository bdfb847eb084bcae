package admit

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/mediatype"
)

// RequireScopes returns a middleware that admits keys that have all of the scopes. Other keys get
// 403 with the code scope_required (RFC 6750 §3.1). A request without a key in its context gets
// 500, since RequireScopes belongs inside an Auth. It panics without a scope, and on one that is
// not a scope-token (RFC 6749 §3.3).
func RequireScopes(scopes ...string) Middleware {
	s, err := newScopes(scopes)
	must(err)
	return s.wrap
}

func (s *scopes) wrap(next http.Handler) http.Handler {
	return wrap("RequireScopes", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		id, err := identified(r)
		if err == nil {
			err = s.check(id)
		}
		if err != nil {
			WriteError(w, r, err)
			return
		}
		in.ServeHTTP(w, r)
	})
}

// scopes is the decision of RequireScopes.
type scopes struct {
	required        []string
	refused, bearer *Error // bearer has the challenge, for a key that may come as a Bearer token
}

func newScopes(required []string) (*scopes, error) {
	if len(required) == 0 {
		return nil, configFault("RequireScopes", "has no scope; leave it out to let in every key")
	}
	var f faults
	for i, scope := range required {
		if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			f.add(fmt.Sprintf("RequireScopes[%d]", i), "is %q; a scope is one or more printable ASCII characters, without space, quote and backslash", scope)
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	list := strings.Join(required, " ")
	s := &scopes{required: slices.Clone(required)}
	s.refused = &Error{Status: http.StatusForbidden, Code: "scope_required", Message: "The caller does not have the scope that this request needs: " + list + "."}
	withChallenge := *s.refused
	withChallenge.Header = http.Header{"Www-Authenticate": {`Bearer error="insufficient_scope", scope=` + mediatype.Quote(list)}}
	s.bearer = &withChallenge
	return s, nil
}

func (s *scopes) check(id *identity) *Error {
	if id == nil {
		return errInternal.WithCause(errors.New("admit: RequireScopes found no key in the context: put an Auth, or a middleware that calls WithKey, outside of it"))
	}
	for _, scope := range s.required {
		if !slices.Contains(id.key.Scopes, scope) {
			if id.bearer {
				return s.bearer
			}
			return s.refused
		}
	}
	return nil
}

func (s *scopes) answers() []Answer {
	return []Answer{answer(s.bearer, "The caller does not have every scope that the resource needs.")}
}
