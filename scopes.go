package admit

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/mediatype"
)

// RequireScopes lets in keys that have all of the scopes, and refuses others with 403
// scope_required (RFC 6750 §3.1). Without a key in the context it is 500: it belongs
// inside an Auth. It panics without a scope, and on one that is no scope-token
// (RFC 6749 §3.3).
func RequireScopes(scopes ...string) Middleware {
	s, err := newScopes(scopes)
	if err != nil {
		panic("admit: RequireScopes: " + err.Error())
	}
	return s.wrap
}

func (s *scopes) wrap(next http.Handler) http.Handler {
	return wrap("RequireScopes", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if err := s.check(identityOf(r.Context())); err != nil {
			WriteError(w, r, err)
			return
		}
		in.ServeHTTP(w, r)
	})
}

// scopes is the decision of RequireScopes.
type scopes struct {
	required        []string
	refused, bearer *Error // bearer: with the challenge for a key that may come as Bearer
}

func newScopes(required []string) (*scopes, error) {
	if len(required) == 0 {
		return nil, errors.New("no scope is given; leave RequireScopes out to let in every key")
	}
	for _, scope := range required {
		if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return nil, fmt.Errorf("%q is not a scope: it is one or more printable ASCII characters, without space, quote and backslash", scope)
		}
	}
	list := strings.Join(required, " ")
	s := &scopes{required: slices.Clone(required)}
	s.refused = &Error{Status: http.StatusForbidden, Code: "scope_required", Message: "The API key does not have the scope that this request needs: " + list + "."}
	withChallenge := *s.refused
	withChallenge.Header = http.Header{"Www-Authenticate": {`Bearer error="insufficient_scope", scope=` + mediatype.Quote(list)}}
	s.bearer = &withChallenge
	return s, nil
}

func (s *scopes) check(id *identity) *Error {
	if id == nil {
		return errInternal.WithCause(errors.New("admit: RequireScopes found no key in the context: put an Auth, or a wrapper that calls WithKey, outside of it"))
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
