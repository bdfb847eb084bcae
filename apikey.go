package admit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit/internal/mint"
)

// APIKey lets in requests with a valid API key, sent as "Authorization: Bearer KEY" or
// "X-API-Key: KEY". It is NewAuth with the defaults: see AuthConfig for the rejections. It
// panics if store is nil.
func APIKey(store KeyStore) Middleware {
	a, err := NewAuth(AuthConfig{Store: store})
	must(err)
	return a.Wrap
}

// AuthConfig configures NewAuth. Only Store is required. A request is rejected, in this order,
// with 400 for two credentials; 401 key_missing for none; 503 store_unavailable if the store
// fails; 401 key_invalid for a key that is unknown, expired, not valid yet or revoked; 403
// address_not_allowed for a key that may not be used from this address. A 401 has challenges
// (RFC 9110 §11.6.1, RFC 6750 §3).
type AuthConfig struct {
	// Store looks up keys. Required.
	Store KeyStore
	// Sources are the places where a request may have its key. Default: FromBearer() and
	// FromHeader("X-API-Key").
	Sources []KeySource
	// Optional lets in requests without a credential, which then have no key. A bad credential
	// is still rejected. See the sources for what counts as no credential.
	Optional bool
	// Realm is named in challenges. Default: "api" for an Authorization scheme, which needs a
	// parameter, and none for other sources.
	Realm string
	// KeepCredential leaves the credential in the request that the handler gets, for a gateway
	// that passes it on.
	KeepCredential bool
	// MintedPrefixes are the prefixes that you pass to Mint, if only minted keys have them. A
	// token with one of these prefixes and a wrong checksum is rejected without a look-up.
	MintedPrefixes []string
	// Failures limits the look-ups of unknown keys for each client address, IPv6 by /64. Beyond
	// the limit, a key that the store does not have in memory is rejected with 429
	// key_throttled. A look-up under way counts as unknown until it has found a key: a request
	// over the limit waits for the look-ups under way for its address, at most five seconds
	// (503 store_unavailable).
	//
	// Keys that a KeyCache still has are not throttled, and a KeyMap or KeyFile needs no
	// throttle. A store of your own says what it has in memory by implementing KeyKnower.
	// Behind proxies, put ClientIP outside. Zero means no limit.
	Failures Limit
}

// Auth authenticates requests by API key. It is safe for concurrent use and may wrap any number
// of handlers.
type Auth struct {
	store    KeyStore
	realm    string
	sources  []KeySource
	optional bool
	keep     bool
	bearer   bool // of the sources
	minted   []string
	failures *failures // nil: not throttled
	made     made

	missing, two, invalid, expired, early, revoked *Error
}

// NewAuth returns an Auth. The error lists every problem of the configuration; the Auth that is
// returned with it cannot serve.
func NewAuth(c AuthConfig) (*Auth, error) {
	var f faults
	if c.Store == nil {
		f.add("AuthConfig.Store", "is nil; give a KeyMap, a KeyFile or a store of your own")
	} else {
		f.value("AuthConfig.Store", c.Store)
	}
	if c.Sources == nil {
		c.Sources = []KeySource{FromBearer(), FromHeader("X-API-Key")}
	} else if len(c.Sources) == 0 {
		f.add("AuthConfig.Sources", "is empty, so no request could have a key; leave it nil for the defaults")
	}
	for i, s := range c.Sources {
		field := fmt.Sprintf("AuthConfig.Sources[%d]", i)
		if fault := s.fault(); fault != "" {
			f.add(field, "%s", fault)
		}
		if slices.ContainsFunc(c.Sources[:i], s.same) {
			f.add(field, "is %s, which is there twice", s)
		}
	}
	if strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' }) {
		f.add("AuthConfig.Realm", "is %q; use printable ASCII characters only", c.Realm)
	}
	for i, prefix := range c.MintedPrefixes {
		field := fmt.Sprintf("AuthConfig.MintedPrefixes[%d]", i)
		if mint.CheckPrefix(prefix) != nil {
			f.add(field, "is %q; Mint takes 1 to 32 of a-z 0-9 _", prefix)
		} else if strings.HasSuffix(prefix, "_") {
			f.add(field, "is %q; omit the underscore: Mint adds one (write %q)", prefix, strings.TrimRight(prefix, "_"))
		}
	}
	failures, err := newFailures(c.Store, c.Failures)
	f.within("AuthConfig.Failures", err)
	if err := f.err(); err != nil {
		return &Auth{made: made{err: err}}, err
	}

	a := &Auth{
		store: c.Store, realm: c.Realm, sources: slices.Clone(c.Sources), optional: c.Optional, keep: c.KeepCredential,
		bearer: slices.ContainsFunc(c.Sources, KeySource.isBearer),
		minted: slices.Clone(c.MintedPrefixes), failures: failures, made: made{ok: true},
	}
	refusal := func(status int, code, message, problem string) *Error {
		e := &Error{Status: status, Code: code, Message: message, Header: http.Header{}}
		for _, s := range a.sources {
			e.Header.Add("WWW-Authenticate", s.challenge(c.Realm, problem))
		}
		return e
	}
	a.missing = refusal(http.StatusUnauthorized, "key_missing", "An API key is required: "+describeSources(a.sources)+".", "")
	a.two = refusal(http.StatusBadRequest, "bad_request", "The request has more than one API key; send one.", "invalid_request")
	a.invalid = refusal(http.StatusUnauthorized, "key_invalid", "The API key is not valid.", "invalid_token")
	a.expired = refusal(http.StatusUnauthorized, "key_invalid", "The API key has expired.", "invalid_token")
	a.early = refusal(http.StatusUnauthorized, "key_invalid", "The API key is not valid yet.", "invalid_token")
	a.revoked = refusal(http.StatusUnauthorized, "key_invalid", "The API key has been revoked.", "invalid_token")
	return a, nil
}

func (a *Auth) fault() error {
	if a == nil {
		return (*made)(nil).fault("Auth")
	}
	return a.made.fault("Auth")
}

// Wrap lets in requests with a valid key. The handler gets the key from KeyFrom, and a copy of
// the request without the credential, unless KeepCredential is set. A request that a has
// authenticated already, as in a Policy inside another, needs no credential.
func (a *Auth) Wrap(next http.Handler) http.Handler {
	must(a.fault())
	return wrap("Auth.Wrap", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		token, source, err := a.credential(r)
		if err == nil && token == "" && (a.optional || a.knows(r)) {
			in.ServeHTTP(w, r)
			return
		}
		var key *Key
		if err == nil {
			var network netip.Addr
			if a.failures != nil {
				network = clientNetwork(r)
			}
			key, err = a.verify(r.Context(), token, network)
		}
		if err == nil && len(key.Networks) > 0 {
			err = key.refuses(ClientIPFrom(r))
		}
		if key != nil {
			note(r.Context(), key) // also one that is refused
		}
		if err != nil {
			WriteError(w, r, err)
			return
		}
		s, w, inner := in.fill(w, r, slotIdentity)
		defer s.leave(r, inner)
		s.identity = identity{key, a, a.bearer}
		s.seen.Store(key)
		if source.in == "query" {
			s.filled |= slotNoStore // a redirect may have the key in its Location
		}
		if !a.keep {
			source.remove(s, inner)
		}
		in.ServeHTTP(w, inner)
	})
}

// knows reports whether a has authenticated the request already, as in a Policy inside another.
// The credential is gone then.
func (a *Auth) knows(r *http.Request) bool {
	id := identityOf(r.Context())
	return id != nil && id.by == a
}

// Verify returns the key of a token, as of now. The error is an *Error: 401 for a token that is
// empty, unknown, expired, not valid yet or revoked; 403 for a key that has Networks; 503 if
// the store fails. It is for tokens that do not come in an HTTP request, and it does not
// throttle.
func (a *Auth) Verify(ctx context.Context, token string) (*Key, error) {
	return a.VerifyFrom(ctx, token, netip.Addr{})
}

// VerifyFrom is Verify for a token that came from an address. If the key has Networks, the
// address must be in one of them.
func (a *Auth) VerifyFrom(ctx context.Context, token string, addr netip.Addr) (*Key, error) {
	if err := a.fault(); err != nil {
		return nil, errInternal.WithCause(err)
	}
	key, err := a.verify(ctx, token, netip.Addr{})
	if err == nil {
		err = key.refuses(addr)
	}
	if err != nil {
		return nil, err
	}
	return key, nil
}

// maxToken is the longest token that is hashed.
const maxToken = 4 << 10

// verify checks a token that came from a network. The invalid Addr, as on a Unix socket, is not
// throttled: all clients would share its limit.
func (a *Auth) verify(ctx context.Context, token string, network netip.Addr) (*Key, *Error) {
	switch {
	case token == "":
		return nil, a.missing
	case len(token) > maxToken:
		return nil, a.invalid
	case len(a.minted) > 0 && slices.Contains(a.minted, mint.Prefix(token)) && !mint.WellFormed(token):
		return nil, a.invalid
	}
	return a.lookUp(ctx, DigestOf(token), network)
}

// lookUp asks the store, unless the network has asked for too many unknown keys.
func (a *Auth) lookUp(ctx context.Context, d Digest, network netip.Addr) (*Key, *Error) {
	var err error
	if a.failures != nil && network.IsValid() {
		paid, refusal := a.failures.pay(ctx, network, d)
		if refusal != nil {
			return nil, refusal
		}
		// A client that leaves before the result pays too, or its guesses would be free.
		defer func() {
			a.failures.settle(paid, errors.Is(err, ErrKeyNotFound) || errors.Is(ctx.Err(), context.Canceled))
		}()
	}
	key, err := a.store.LookupKey(ctx, d)
	if err == nil && key == nil {
		err = ErrKeyNotFound
	}
	switch {
	case errors.Is(err, ErrKeyNotFound):
		return nil, a.invalid
	case err != nil:
		return nil, errStoreUnavailable.WithCause(fmt.Errorf("ask the key store: %w", err))
	case key.ID == "":
		return nil, errInternal.WithCause(errNoKeyID)
	default:
		return key, a.validity(key)
	}
}

// validity is checked in every request: a store may cache which key a token is, never whether
// the key is valid.
func (a *Auth) validity(k *Key) *Error {
	if k.NotBefore.IsZero() && k.ExpiresAt.IsZero() && k.RevokedAt.IsZero() {
		return nil
	}
	switch k.Status(time.Now()) {
	case KeyRevoked:
		return a.revoked
	case KeyExpired:
		return a.expired
	case KeyEarly:
		return a.early
	default:
		return nil
	}
}

// credential returns the credential of the request and its source. The token is empty if there
// is none.
func (a *Auth) credential(r *http.Request) (token string, source *KeySource, err *Error) {
	for i := range a.sources {
		value, found := a.sources[i].find(r)
		switch {
		case found == manyTimes, found == theKey && token != "":
			return "", nil, a.two
		case found == emptyKey:
			err = a.invalid
		case found == theKey:
			token, source = value, &a.sources[i]
		}
	}
	return token, source, err
}

var errStoreUnavailable = &Error{
	Status:     http.StatusServiceUnavailable,
	Code:       "store_unavailable",
	Message:    "The request could not be checked right now. Try again.",
	RetryAfter: 5 * time.Second,
}

func (a *Auth) answers() []Answer {
	all := []Answer{
		answer(a.invalid, "The API key is not known."),
		answer(a.expired, "The API key has expired."),
		answer(a.early, "The API key is not valid yet."),
		answer(a.revoked, "The API key has been revoked."),
		answer(a.two, "The request has more than one API key."),
		answer(errAddressNotAllowed, "The credential may not be used from this address."),
	}
	if !a.optional {
		all = append([]Answer{answer(a.missing, "The request has no API key.")}, all...)
	}
	if a.throttles() {
		throttled := *errKeyThrottled
		throttled.RetryAfter = a.failures.rules[0].Per / time.Duration(a.failures.rules[0].Requests)
		all = append(all, answer(&throttled, "Too many unknown API keys came from the address of the caller."))
	}
	if a.outside() {
		all = append(all, answer(errStoreUnavailable, "The service could not look up the API key."))
	}
	return all
}

// throttles reports whether a request may be throttled. If the store has all keys in memory,
// none is.
func (a *Auth) throttles() bool { return a.failures != nil && a.outside() }

// outside reports whether the store may fail. One in the memory of this process does not.
func (a *Auth) outside() bool {
	switch a.store.(type) {
	case KeyMap, *KeyFile:
		return false
	}
	return true
}
