package admit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit/internal/mediatype"
)

// APIKey lets in requests with a key that the store knows, given as
// "Authorization: Bearer KEY" or "X-API-Key: KEY". It is NewAuth with defaults: see
// AuthConfig for the refusals. It panics without a store.
func APIKey(store KeyStore) Middleware {
	a, err := NewAuth(AuthConfig{Store: store})
	if err != nil {
		panic("admit: APIKey: " + err.Error())
	}
	return a.Wrap
}

// AuthConfig says where a key comes from and who knows it. In this order a request is
// refused with 400 for two credentials; 401 key_missing for none and key_invalid for
// one that is unknown, expired, not valid yet or revoked, with challenges (RFC 9110
// §11.6.1, RFC 6750 §3); 503 store_unavailable when the store fails.
type AuthConfig struct {
	// Store knows the keys. Required.
	Store KeyStore
	// Sources are where a key may stand. Nil: FromBearer(), FromHeader("X-API-Key").
	Sources []KeySource
	// Optional lets in a request without a credential, as nobody. A bad credential is
	// refused all the same.
	Optional bool
	// Realm is named in challenges. Empty: none is.
	Realm string
	// KeepCredential leaves the credential in the request that the handler gets, for a
	// gateway that passes it on.
	KeepCredential bool
	// MintedPrefixes are prefixes that only Mint gives out: a token with one of them
	// and a wrong checksum is refused without asking the store.
	MintedPrefixes []string
	// Failures limits how many unknown keys the store is asked for by one client address,
	// IPv6 by /64. Beyond it, what is not known in memory is refused with 429 rate_limited.
	// Keys that a KeyCache has still pass, and a KeyMap or KeyFile needs no throttle; a
	// store of your own says what it knows with a method Knows(Digest) bool. Behind
	// proxies put ClientIP outside. Zero: off.
	Failures Limit
}

// Auth finds out who calls. It is safe for concurrent use, around any number of
// handlers.
type Auth struct {
	store    KeyStore
	sources  []KeySource
	optional bool
	keep     bool
	minted   []string
	failures *failures // nil: not throttled

	missing, two, invalid, expired, early, revoked *Error
}

// NewAuth reports every fault of the configuration at once.
func NewAuth(c AuthConfig) (*Auth, error) {
	var faults []error
	if c.Store == nil {
		faults = append(faults, errors.New("admit: AuthConfig.Store is nil; give a KeyMap, a KeyFile or a store of your own"))
	}
	if c.Sources == nil {
		c.Sources = []KeySource{FromBearer(), FromHeader("X-API-Key")}
	} else if len(c.Sources) == 0 {
		faults = append(faults, errors.New("admit: AuthConfig.Sources is empty, so that no request could have a key; leave it nil for the defaults"))
	}
	for i, s := range c.Sources {
		if err := s.check(); err != nil {
			faults = append(faults, fmt.Errorf("admit: AuthConfig.Sources[%d]: %w", i, err))
		}
		if slices.Contains(c.Sources[:i], s) {
			faults = append(faults, fmt.Errorf("admit: AuthConfig.Sources[%d]: %s is there twice", i, s))
		}
	}
	if strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' }) {
		faults = append(faults, fmt.Errorf("admit: AuthConfig.Realm: %q has characters that are not printable ASCII", c.Realm))
	}
	for i, prefix := range c.MintedPrefixes {
		if err := checkPrefix(prefix); err != nil {
			faults = append(faults, fmt.Errorf("admit: AuthConfig.MintedPrefixes[%d]: %w", i, err))
		}
	}
	failures, err := newFailures(c.Store, c.Failures)
	if err != nil {
		faults = append(faults, fmt.Errorf("admit: AuthConfig.Failures: %w", err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}

	a := &Auth{
		store: c.Store, sources: slices.Clone(c.Sources), optional: c.Optional, keep: c.KeepCredential,
		minted: slices.Clone(c.MintedPrefixes), failures: failures,
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

// Wrap lets in requests with a valid key, which KeyFrom gives to the handler, without
// the credential: it is removed from a copy of the request, unless KeepCredential.
func (a *Auth) Wrap(next http.Handler) http.Handler {
	mustWrap("Auth.Wrap", next)
	if a == nil {
		panic("admit: Auth.Wrap: the Auth is nil; NewAuth makes one")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, source, err := a.credential(r)
		if err == nil && token == "" && (a.optional || a.knows(r)) {
			next.ServeHTTP(w, r)
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
		if err != nil {
			WriteError(w, r, err)
			return
		}
		inner := withIdentity(r, key, a)
		if !a.keep {
			source.remove(inner)
		}
		defer handBack(r, inner)
		next.ServeHTTP(w, inner)
	})
}

// knows reports whether a is around the request already, as in a Policy inside another:
// the credential is gone then.
func (a *Auth) knows(r *http.Request) bool {
	id := identityOf(r.Context())
	return id != nil && id.auth == a
}

// Verify returns the key that a token stands for, as of now. The error is an *Error:
// 401 for a token that is empty, unknown, expired, not valid yet or revoked; 503 if the
// store fails. It is for tokens that do not come in an HTTP request, and throttles
// nobody.
func (a *Auth) Verify(ctx context.Context, token string) (*Key, error) {
	key, err := a.verify(ctx, token, netip.Addr{})
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
	case len(a.minted) > 0 && slices.Contains(a.minted, mintedPrefix(token)) && !wellMinted(token):
		return nil, a.invalid
	}
	d := DigestOf(token)
	throttled := a.failures != nil && network.IsValid() && !a.failures.known(d)
	if throttled {
		if err := a.failures.refuse(network); err != nil {
			return nil, err
		}
	}
	key, err := a.store.LookupKey(ctx, d)
	switch {
	case err == nil && key != nil:
		return key, a.validity(key)
	case err == nil, errors.Is(err, ErrKeyNotFound):
		if throttled {
			a.failures.note(network)
		}
		return nil, a.invalid
	default:
		return nil, errStoreUnavailable.Because(fmt.Errorf("look up a key: %w", err))
	}
}

// validity is looked at in every request: a store may cache who a key is, never
// whether it is valid.
func (a *Auth) validity(k *Key) *Error {
	if k.NotBefore.IsZero() && k.ExpiresAt.IsZero() && k.RevokedAt.IsZero() {
		return nil
	}
	now := time.Now()
	switch {
	case !k.RevokedAt.IsZero() && !now.Before(k.RevokedAt):
		return a.revoked
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return a.expired
	case now.Before(k.NotBefore):
		return a.early
	default:
		return nil
	}
}

// credential returns the one credential of the request and its source; the token is
// empty if there is none.
func (a *Auth) credential(r *http.Request) (token string, source *KeySource, err *Error) {
	for i := range a.sources {
		found, more := a.sources[i].find(r)
		if more || found != "" && token != "" {
			return "", nil, a.two
		}
		if found != "" {
			token, source = found, &a.sources[i]
		}
	}
	return token, source, nil
}

// KeySource is where in a request a key may stand.
type KeySource struct {
	in   string // bearer, header, query, cookie
	name string
}

// FromBearer is the Authorization header with the scheme Bearer (RFC 6750 §2.1).
// Other schemes are not looked at.
func FromBearer() KeySource { return KeySource{"bearer", "Authorization"} }

// FromHeader is a header that holds the key alone, such as X-API-Key.
func FromHeader(name string) KeySource { return KeySource{"header", http.CanonicalHeaderKey(name)} }

// FromQuery is a parameter of the query. Proxies and browsers keep URLs in logs and
// histories, keys included: use it where clients can do nothing else.
func FromQuery(name string) KeySource { return KeySource{"query", name} }

// FromCookie is a cookie. Browsers send it along with requests from other sites, so
// the service needs protection against those (http.CrossOriginProtection).
func FromCookie(name string) KeySource { return KeySource{"cookie", name} }

// String describes the source.
func (s KeySource) String() string {
	switch s.in {
	case "bearer":
		return "Authorization: Bearer"
	case "header":
		return "the header " + s.name
	case "query":
		return "the query parameter " + s.name
	case "cookie":
		return "the cookie " + s.name
	default:
		return "no source"
	}
}

func describeSources(sources []KeySource) string {
	var all []string
	for _, s := range sources {
		all = append(all, s.String())
	}
	return strings.Join(all, " or ")
}

func (s KeySource) check() error {
	switch s.in {
	case "bearer":
	case "header":
		if !mediatype.IsToken(s.name) {
			return fmt.Errorf("%q is not the name of a header", s.name)
		}
		if s.name == "Authorization" {
			return errors.New("the Authorization header has a scheme before the key: use FromBearer")
		}
	case "query":
		if s.name == "" {
			return errors.New("a query parameter needs a name")
		}
	case "cookie":
		if !mediatype.IsToken(s.name) {
			return fmt.Errorf("%q is not the name of a cookie", s.name)
		}
	default:
		return errors.New("the zero KeySource is no source: use FromBearer, FromHeader, FromQuery or FromCookie")
	}
	return nil
}

// challenge is what a refusal says of the source. Bearer is registered; a key on its
// own has no scheme of the registry, so it is described as API descriptions do it.
func (s KeySource) challenge(realm, problem string) string {
	var params []string
	param := func(name, value string) { params = append(params, name+"="+mediatype.Quote(value)) }
	scheme := "Bearer"
	if s.in != "bearer" {
		scheme = "ApiKey"
		param("in", s.in)
		param("name", s.name)
	}
	if realm != "" {
		param("realm", realm)
	}
	if problem != "" {
		param("error", problem)
	}
	return strings.TrimSpace(scheme + " " + strings.Join(params, ", "))
}

// find returns the value that the source has in r, without white space around it;
// more says that it is there more than once.
func (s *KeySource) find(r *http.Request) (value string, more bool) {
	switch s.in {
	case "bearer", "header":
		lines := r.Header[s.name]
		if len(lines) == 0 {
			return "", false
		}
		value = lines[0]
		if s.in == "bearer" {
			value = bearer(value)
		}
		return strings.Trim(value, " \t"), len(lines) > 1
	case "query":
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			if v, ok := s.inQuery(pair); ok {
				if more = value != ""; more {
					return "", true
				}
				value = v
			}
		}
	case "cookie":
		for _, c := range r.CookiesNamed(s.name) {
			if more = value != ""; more {
				return "", true
			}
			value = c.Value
		}
	}
	return value, false
}

// bearer returns what follows the scheme Bearer, in any case (RFC 9110 §11.1).
func bearer(authorization string) string {
	const scheme = "Bearer"
	authorization = strings.TrimLeft(authorization, " \t")
	if len(authorization) > len(scheme) && strings.EqualFold(authorization[:len(scheme)], scheme) {
		if c := authorization[len(scheme)]; c == ' ' || c == '\t' {
			return authorization[len(scheme)+1:]
		}
	}
	return ""
}

// inQuery reports whether a pair of the query is this source, with its value.
func (s *KeySource) inQuery(pair string) (value string, ok bool) {
	name, value, _ := strings.Cut(pair, "=")
	if name, err := url.QueryUnescape(name); err != nil || name != s.name {
		return "", false
	}
	if plain, err := url.QueryUnescape(value); err == nil {
		value = plain
	}
	return value, true
}

// remove takes the credential out of r, which is a copy that shares what it points to
// with the original.
func (s *KeySource) remove(r *http.Request) {
	switch s.in {
	case "bearer", "header":
		r.Header = maps.Clone(r.Header)
		delete(r.Header, s.name)
	case "query":
		var kept []string
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			if _, ok := s.inQuery(pair); !ok {
				kept = append(kept, pair)
			}
		}
		u := *r.URL
		u.RawQuery = strings.Join(kept, "&")
		r.URL = &u
		if path, _, ok := strings.Cut(r.RequestURI, "?"); ok {
			r.RequestURI = strings.TrimSuffix(path+"?"+u.RawQuery, "?")
		}
		if r.Form != nil { // a wrapper outside has parsed it
			r.Form = maps.Clone(r.Form)
			delete(r.Form, s.name)
		}
	case "cookie":
		r.Header = maps.Clone(r.Header)
		var lines []string
		for _, line := range r.Header["Cookie"] {
			var kept []string
			for pair := range strings.SplitSeq(line, ";") {
				pair = strings.TrimSpace(pair)
				if name, _, _ := strings.Cut(pair, "="); strings.TrimSpace(name) != s.name {
					kept = append(kept, pair)
				}
			}
			if len(kept) > 0 {
				lines = append(lines, strings.Join(kept, "; "))
			}
		}
		if delete(r.Header, "Cookie"); len(lines) > 0 {
			r.Header["Cookie"] = lines
		}
	}
}

// WithKey returns a context in which KeyFrom finds the key: for tests, and for an
// identity from elsewhere, such as a JWT.
func WithKey(ctx context.Context, key *Key) context.Context {
	return &identity{Context: ctx, key: key}
}

// KeyFrom returns the key of the request: in a handler the one that Auth or WithKey
// around it has found, and in an access log outside of Auth, once next has returned,
// the one that was found inside.
func KeyFrom(ctx context.Context) (*Key, bool) {
	if id := identityOf(ctx); id != nil {
		return id.key, id.key != nil
	}
	if s := find(ctx, slotSeen); s != nil {
		return s.seen, true
	}
	return nil, false
}

// identityOf returns what Auth or WithKey around the caller has found, or nil. This
// is what decisions are made on.
func identityOf(ctx context.Context) *identity {
	id, _ := ctx.Value(identityKey{}).(*identity)
	return id
}

// withIdentity returns a copy of r with the key in its context, and leaves a note of
// it in the states outside that have none, for logs.
func withIdentity(r *http.Request, key *Key, by *Auth) *http.Request {
	ctx := r.Context()
	s := stateOf(ctx)
	if s == nil {
		s = newState(r, nil)
		ctx = s
	}
	for o := s; o != nil; o = o.outer {
		if o.claim(slotSeen) {
			o.seen = key
			o.publish(slotSeen)
		}
	}
	var id *identity
	if s.claim(slotIdentity) {
		id = &s.identity
	} else {
		id = new(identity)
	}
	id.Context, id.key, id.auth = ctx, key, by
	inner := r.WithContext(id)
	s.copied.Store(inner)
	return inner
}

// RequireScopes lets in keys that have all of the scopes, and refuses others with 403
// scope_required (RFC 6750 §3.1). Without a key in the context it is 500: it belongs
// inside an Auth. It panics without a scope, and on one that is no scope-token
// (RFC 6749 §3.3).
func RequireScopes(scopes ...string) Middleware {
	s, err := newScopes(scopes)
	if err != nil {
		panic("admit: RequireScopes: " + err.Error())
	}
	return func(next http.Handler) http.Handler {
		mustWrap("RequireScopes", next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := s.check(identityOf(r.Context())); err != nil {
				WriteError(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
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
	if id == nil || id.key == nil {
		return errInternal.Because(errors.New("admit: RequireScopes found no key in the context: put an Auth, or a wrapper that calls WithKey, outside of it"))
	}
	for _, scope := range s.required {
		if !slices.Contains(id.key.Scopes, scope) {
			if id.auth == nil || slices.Contains(id.auth.sources, FromBearer()) {
				return s.bearer
			}
			return s.refused
		}
	}
	return nil
}

var errStoreUnavailable = &Error{
	Status:     http.StatusServiceUnavailable,
	Code:       "store_unavailable",
	Message:    "The request could not be checked right now. Try again.",
	RetryAfter: 5 * time.Second,
}
