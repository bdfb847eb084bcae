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

// APIKey lets in requests with a key that the store knows, given as
// "Authorization: Bearer KEY" or "X-API-Key: KEY". It is NewAuth with defaults: see
// AuthConfig for the refusals. It panics without a store.
func APIKey(store KeyStore) Middleware {
	a, err := NewAuth(AuthConfig{Store: store})
	must(err)
	return a.Wrap
}

// AuthConfig says where a key comes from and who knows it. In this order a request is
// refused with 400 for two credentials; 401 key_missing for none and key_invalid for
// one that is unknown, expired, not valid yet or revoked, with challenges (RFC 9110
// §11.6.1, RFC 6750 §3); 403 address_not_allowed for one that may not be used from this
// address; 503 store_unavailable when the store fails.
type AuthConfig struct {
	// Store knows the keys. Required.
	Store KeyStore
	// Sources are where a key may stand. Nil: FromBearer(), FromHeader("X-API-Key").
	Sources []KeySource
	// Optional lets in a request without a credential, as nobody. A bad credential is
	// refused all the same. What a source does not take is none: see the sources.
	Optional bool
	// Realm is named in challenges. Empty: "api" in those of an Authorization scheme, which
	// need a parameter, and none in others.
	Realm string
	// KeepCredential leaves the credential in the request that the handler gets, for a
	// gateway that passes it on.
	KeepCredential bool
	// MintedPrefixes are those of your calls of Mint, if no other keys have them: a token with
	// one of them and a wrong checksum is refused without asking the store.
	MintedPrefixes []string
	// Failures limits how many unknown keys the store is asked for by one client address,
	// IPv6 by /64. Beyond it, what is not known in memory is refused with 429 key_throttled;
	// look-ups that are under way count until they have found a key, and are waited for, for
	// five seconds at most (503 store_unavailable).
	// Keys that a KeyCache has still pass, and a KeyMap or KeyFile needs no throttle; a
	// store of your own says what it knows with a method Knows(Digest) bool. Behind
	// proxies put ClientIP outside. Zero: off.
	Failures Limit
}

// Auth finds out who calls. It is safe for concurrent use, around any number of
// handlers.
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

// NewAuth returns an Auth. The error has every fault of the configuration; the Auth that
// comes with it cannot serve.
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
		f.add("AuthConfig.Sources", "is empty, so that no request could have a key; leave it nil for the defaults")
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
		f.add("AuthConfig.Realm", "is %q; it may have printable ASCII alone", c.Realm)
	}
	for i, prefix := range c.MintedPrefixes {
		field := fmt.Sprintf("AuthConfig.MintedPrefixes[%d]", i)
		if mint.CheckPrefix(prefix) != nil {
			f.add(field, "is %q; Mint takes 1 to 32 of a-z 0-9 _", prefix)
		} else if strings.HasSuffix(prefix, "_") {
			f.add(field, "is %q; give the prefix as Mint got it, which adds the underscore itself: %q", prefix, strings.TrimRight(prefix, "_"))
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

// Wrap lets in requests with a valid key, which KeyFrom gives to the handler, without
// the credential: it is removed from a copy of the request, unless KeepCredential.
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

// knows reports whether a is around the request already, as in a Policy inside another:
// the credential is gone then.
func (a *Auth) knows(r *http.Request) bool {
	id := identityOf(r.Context())
	return id != nil && id.by == a
}

// Verify returns the key that a token stands for, as of now. The error is an *Error:
// 401 for a token that is empty, unknown, expired, not valid yet or revoked; 403 for a key
// that has Networks; 503 if the store fails. It is for tokens that do not come in an HTTP
// request, and throttles nobody.
func (a *Auth) Verify(ctx context.Context, token string) (*Key, error) {
	return a.VerifyFrom(ctx, token, netip.Addr{})
}

// VerifyFrom is Verify for a token that came from an address, which must be in one of the
// Networks of the key if it has any.
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

// maxToken bounds what is hashed for a stranger.
const maxToken = 4 << 10

// verify decides about a token that came from a network; the invalid Addr, as there is
// none on a Unix socket, is not throttled: it would be everybody's.
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
		// A caller that does not wait for the answer has paid too, or it would ask for nothing.
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
		return nil, errStoreUnavailable.WithCause(fmt.Errorf("look up a key: %w", err))
	case key.ID == "":
		return nil, errInternal.WithCause(errNoKeyID)
	default:
		return key, a.validity(key)
	}
}

// validity is looked at in every request: a store may cache who a key is, never
// whether it is valid.
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

// credential returns the one credential of the request and its source; the token is
// empty if there is none.
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
		answer(errAddressNotAllowed, "The API key may not be used from this address."),
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

// throttles reports whether anybody may be throttled, as not where the store knows all keys.
func (a *Auth) throttles() bool { return a.failures != nil && a.outside() }

// outside reports whether the store may fail, as one in the memory of this process does not.
func (a *Auth) outside() bool {
	switch a.store.(type) {
	case KeyMap, *KeyFile:
		return false
	}
	return true
}
