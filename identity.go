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

// WithKey returns a context in which KeyFrom finds the key. It is for tests, and for
// middlewares that authenticate in another way, such as by a JWT. Check that the key is valid
// before you call WithKey. Give its ID a prefix of its own, such as user:, or the caller shares
// limits with the API key of the same ID. The Networks of the key are checked by
// Policy.Identity, RequireScopes, Plans, Limiter, Quotas and Shedder, which answer with 500 for
// a key without an ID. If a middleware of this package is around, SeenKeyFrom finds the key
// there.
func WithKey(ctx context.Context, key *Key) context.Context {
	if key != nil {
		note(ctx, key)
	}
	return &keyContext{ctx, identity{key: key, bearer: true}}
}

// KeyFrom returns the key that an Auth or WithKey around the handler has set. Handlers use it
// for decisions. It does not return a key without an ID, nor a key that was set for another
// handler of the same request.
func KeyFrom(ctx context.Context) (*Key, bool) {
	if id := identityOf(ctx); id != nil && id.key.ID != "" {
		return id.key, true
	}
	return nil, false
}

// SeenKeyFrom returns the key that an Auth or WithKey further inside has found last, even if
// the request was rejected since. It is for an access log around them, after next has returned,
// and for ErrorWriter.Observe. It needs a middleware of this package, such as RequestID,
// outside the log. Never use it for decisions: if a request passes several handlers, the key
// may be that of any of them.
func SeenKeyFrom(ctx context.Context) (*Key, bool) {
	if s := stateOf(ctx); s != nil {
		if key := s.seen.Load(); key != nil {
			return key, true
		}
	}
	return nil, false
}

// identified returns the identity of the caller, for a decision, or nil if there is none. The
// error is the rejection of a request whose key cannot be used. An Auth has checked its key
// already.
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

// admitIdentity checks a key that WithKey has set, as Auth checks its own, so that the Networks
// of the key apply whatever is inside.
func admitIdentity(next http.Handler) http.Handler {
	return wrap("Identity", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if _, err := identified(r); err != nil {
			WriteError(w, r, err)
			return
		}
		in.ServeHTTP(w, r)
	})
}

// Caller returns who sent r, as limits count by default: "key:" and the ID of its Key if it has
// one, else "addr:" and the address of the client from ClientIPFrom, IPv6 cut to its /64. All
// requests without an address, as on a Unix socket, are one caller.
func Caller(r *http.Request) string {
	var buf [128]byte
	return string(appendCaller(buf[:0], r, "", nil))
}

// appendCaller appends the class of the caller, the name of the Limiter if it has one, and what
// identifies the caller.
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
	return []Answer{answer(errAddressNotAllowed, "The credential may not be used from this address.")}
}
