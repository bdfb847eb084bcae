package admit

import (
	"context"
	"net/http"
)

// keyContext is the context that WithKey returns.
type keyContext struct {
	context.Context
	identity identity
}

// Value implements context.Context.
func (c *keyContext) Value(key any) any {
	if key == (identityKey{}) {
		return &c.identity
	}
	return c.Context.Value(key)
}

// WithKey returns a context in which KeyFrom finds the key: for tests, and for an
// identity from elsewhere, such as a JWT. Give its ID a prefix of its own, such as user:, or
// it shares limits with the API key of that ID. Whether the key is valid is for the caller
// to know; its Networks are looked at by Policy.Identity, RequireScopes, Plans and Limiter,
// which answer 500 for a key without an ID. Where a wrapper of this package is around,
// SeenKeyFrom finds the key there.
func WithKey(ctx context.Context, key *Key) context.Context {
	if key != nil {
		note(ctx, key)
	}
	return &keyContext{ctx, identity{key: key, bearer: true}}
}

// KeyFrom returns the key that an Auth or WithKey around the caller has found: what a
// handler decides by. What another handler of the same request has found it does not
// return, nor a key without an ID.
func KeyFrom(ctx context.Context) (*Key, bool) {
	if id := identityOf(ctx); id != nil && id.key.ID != "" {
		return id.key, true
	}
	return nil, false
}

// SeenKeyFrom returns the key that an Auth or WithKey inside of the caller has found last,
// also one that was refused since: for an access log around them, after next has
// returned, and for ErrorWriter.Observe. It needs a wrapper of this package outside of the
// log, such as RequestID. Never decide by it: with several handlers in a request, the key
// is that of any one.
func SeenKeyFrom(ctx context.Context) (*Key, bool) {
	if s := stateOf(ctx); s != nil {
		if key := s.seen.Load(); key != nil {
			return key, true
		}
	}
	return nil, false
}

// identified returns who calls, for a decision, or nil for nobody. The error is the answer
// to a request whose key nothing can be decided by. An Auth has looked at its key already.
func identified(r *http.Request) (*identity, *Error) {
	id := identityOf(r.Context())
	if id == nil || id.by != nil {
		return id, nil
	}
	if id.key.ID == "" {
		return nil, errInternal.WithCause(errNoKeyID)
	}
	if len(id.key.Networks) > 0 {
		return id, id.key.refuses(ClientIPFrom(r))
	}
	return id, nil
}

// admitIdentity looks at a key that WithKey has put there, as Auth does at its own: whoever
// uses it inside, its Networks hold.
func admitIdentity(next http.Handler) http.Handler {
	return wrap("Identity", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if _, err := identified(r); err != nil {
			WriteError(w, r, err)
			return
		}
		in.ServeHTTP(w, r)
	})
}

// Caller returns who sent r, as limits count by default: "key:" and the ID of its Key
// if it has one, else "addr:" and the client's address as ClientIPFrom finds it, IPv6
// cut to its /64. Requests without an address, as on a Unix socket, are one caller.
func Caller(r *http.Request) string {
	var buf [128]byte
	return string(appendCaller(buf[:0], r, "", nil))
}

// appendCaller appends the class of the caller, the name of the Limiter if it has one,
// and what tells the caller apart.
func appendCaller(b []byte, r *http.Request, name string, by func(*http.Request) string) []byte {
	id := identityOf(r.Context())
	hasKey := id != nil && id.key.ID != ""
	switch {
	case by != nil:
		b = append(b, byPrefix...)
	case hasKey:
		b = append(b, keyPrefix...)
	default:
		b = append(b, addrPrefix...)
	}
	if name != "" {
		b = append(append(b, name...), ':')
	}
	switch {
	case by != nil:
		return append(b, by(r)...)
	case hasKey:
		return append(b, id.key.ID...)
	}
	addr := clientNetwork(r)
	if !addr.IsValid() {
		return b
	}
	return addr.AppendTo(b)
}

func identityAnswers() []Answer {
	return []Answer{answer(errAddressNotAllowed, "The caller may not come from this address.")}
}
