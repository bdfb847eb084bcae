package admit_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// storeFunc is a KeyStore that is one function.
type storeFunc func(context.Context, admit.Digest) (*admit.Key, error)

func (f storeFunc) LookupKey(ctx context.Context, d admit.Digest) (*admit.Key, error) {
	return f(ctx, d)
}

// oneKey knows the token "good", and no other.
var oneKey = admit.KeyMap{admit.DigestOf("good"): {ID: "k1", Owner: "ACME", Plan: "pro", Scopes: []string{"orders:read", "orders:write"}}}

var allSources = []admit.KeySource{
	admit.FromBearer(), admit.FromHeader("x-api-key"), admit.FromQuery("api_key"), admit.FromCookie("key"),
}

func newAuth(t testing.TB, c admit.AuthConfig) *admit.Auth {
	t.Helper()
	if c.Store == nil {
		c.Store = oneKey
	}
	a, err := admit.NewAuth(c)
	require.NoError(t, err)
	return a
}

func TestAuthDecides(t *testing.T) {
	t.Parallel()
	const (
		bareChallenges = `Bearer realm="api"|ApiKey in="header", name="X-Api-Key"|ApiKey in="query", name="api_key"|ApiKey in="cookie", name="key"`
		badChallenges  = `Bearer realm="api", error="invalid_token"|ApiKey in="header", name="X-Api-Key", error="invalid_token"|ApiKey in="query", name="api_key", error="invalid_token"|ApiKey in="cookie", name="key", error="invalid_token"`
		twoChallenges  = `Bearer realm="api", error="invalid_request"|ApiKey in="header", name="X-Api-Key", error="invalid_request"|ApiKey in="query", name="api_key", error="invalid_request"|ApiKey in="cookie", name="key", error="invalid_request"`
	)
	tests := map[string]struct {
		path    string // "": /
		headers []string
		code    string // "": let in
	}{
		"bearer":                    {headers: []string{"Authorization", "Bearer good"}},
		"scheme in any case":        {headers: []string{"Authorization", "bEARER good"}},
		"white space around":        {headers: []string{"Authorization", "Bearer   good\t"}},
		"a tab after the scheme":    {headers: []string{"Authorization", "Bearer\tgood"}},
		"space before the scheme":   {headers: []string{"Authorization", " \tBearer good"}},
		"header":                    {headers: []string{"X-API-Key", "good"}},
		"header with white space":   {headers: []string{"X-API-Key", " good "}},
		"query":                     {path: "/?a=1&api_key=good&b=2"},
		"query, escaped":            {path: "/?api%5Fkey=%67ood"},
		"cookie":                    {headers: []string{"Cookie", "a=1; key=good; b=2"}},
		"cookie, quoted":            {headers: []string{"Cookie", `key="good"`}},
		"another scheme beside":     {headers: []string{"Authorization", "Basic Z29vZA==", "X-API-Key", "good"}},
		"none":                      {code: "key_missing"},
		"another scheme":            {headers: []string{"Authorization", "Basic Z29vZA=="}, code: "key_missing"},
		"a scheme as long":          {headers: []string{"Authorization", "Digest good"}, code: "key_missing"},
		"bearer alone":              {headers: []string{"Authorization", "Bearer"}, code: "key_invalid"},
		"bearer with a space":       {headers: []string{"Authorization", "Bearer "}, code: "key_invalid"},
		"bearer alone, and a key":   {headers: []string{"Authorization", "bearer\t ", "X-API-Key", "good"}, code: "key_invalid"},
		"scheme that only begins":   {headers: []string{"Authorization", "Bearergood"}, code: "key_missing"},
		"empty header":              {headers: []string{"X-API-Key", "  "}, code: "key_missing"},
		"empty query":               {path: "/?api_key=&api_key", code: "key_missing"},
		"empty cookie":              {headers: []string{"Cookie", "key="}, code: "key_missing"},
		"unknown":                   {headers: []string{"X-API-Key", "bad"}, code: "key_invalid"},
		"two in one value":          {headers: []string{"Authorization", "Bearer good good"}, code: "key_invalid"},
		"query that cannot be read": {path: "/?api_key=%zz", code: "key_invalid"},
		"case matters":              {headers: []string{"X-API-Key", "GOOD"}, code: "key_invalid"},
		"bearer and header":         {headers: []string{"Authorization", "Bearer good", "X-API-Key", "good"}, code: "bad_request"},
		"header and query":          {path: "/?api_key=x", headers: []string{"X-API-Key", "good"}, code: "bad_request"},
		"query and cookie":          {path: "/?api_key=good", headers: []string{"Cookie", "key=good"}, code: "bad_request"},
		"two bearer lines":          {headers: []string{"Authorization", "Bearer good", "Authorization", "Bearer good"}, code: "bad_request"},
		"two header lines":          {headers: []string{"X-API-Key", "good", "X-API-Key", ""}, code: "bad_request"},
		"two in the query":          {path: "/?api_key=good&api_key=bad", code: "bad_request"},
		"two cookies":               {headers: []string{"Cookie", "key=good", "Cookie", "key=bad"}, code: "bad_request"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, optional := range []bool{false, true} {
				var who string
				h := newAuth(t, admit.AuthConfig{Sources: allSources, Optional: optional}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if k, found := admit.KeyFrom(r.Context()); found {
						who = k.ID
					}
				}))
				path := test.path
				if path == "" {
					path = "/"
				}
				switch r := get(path, test.headers...); {
				case test.code == "":
					allowed(t, h, r)
					assert.Equal(t, "k1", who)
				case test.code == "key_missing" && optional:
					allowed(t, h, r)
					assert.Empty(t, who)
				default:
					status, challenges := 401, badChallenges
					switch test.code {
					case "key_missing":
						challenges = bareChallenges
					case "bad_request":
						status, challenges = 400, twoChallenges
					}
					e, header := refused(t, h, r, status)
					assert.Equal(t, test.code, e.Code)
					assert.Equal(t, challenges, strings.Join(header["Www-Authenticate"], "|"))
					assert.Empty(t, who)
				}
			}
		})
	}
}

func TestAPIKeyDefaults(t *testing.T) {
	t.Parallel()
	h := admit.APIKey(oneKey)(ok)
	allowed(t, h, get("/", "Authorization", "Bearer good"))
	allowed(t, h, get("/", "X-API-Key", "good"))
	refused(t, h, get("/?api_key=good"), 401)
	e, header := refused(t, h, get("/"), 401)
	assert.Equal(t, "An API key is required: Authorization: Bearer or the header X-Api-Key.", e.Message)
	assert.Equal(t, []string{`Bearer realm="api"`, `ApiKey in="header", name="X-Api-Key"`}, header["Www-Authenticate"])
	e, _ = refused(t, newAuth(t, admit.AuthConfig{Sources: allSources[2:]}).Wrap(ok), get("/"), 401)
	assert.Equal(t, "An API key is required: the query parameter api_key or the cookie key.", e.Message)
	assert.Panics(t, func() { admit.APIKey(nil) })
	assert.Panics(t, func() { admit.APIKey(oneKey)(nil) })
	assert.Equal(t, "admit: Auth was not made by NewAuth, and cannot work; use NewAuth", panicOf(func() { (*admit.Auth)(nil).Wrap(ok) }))
}

func TestRealmIsQuoted(t *testing.T) {
	t.Parallel()
	h := newAuth(t, admit.AuthConfig{Realm: `the "best" \ API`, Sources: []admit.KeySource{admit.FromBearer()}}).Wrap(ok)
	_, header := refused(t, h, get("/"), 401)
	assert.Equal(t, []string{`Bearer realm="the \"best\" \\ API"`}, header["Www-Authenticate"])
	_, header = refused(t, h, get("/", "Authorization", "Bearer x"), 401)
	assert.Equal(t, []string{`Bearer realm="the \"best\" \\ API", error="invalid_token"`}, header["Www-Authenticate"])

	h = newAuth(t, admit.AuthConfig{Sources: []admit.KeySource{admit.FromQuery("a\x1f ~\x7fé")}}).Wrap(ok)
	_, header = refused(t, h, get("/"), 401)
	assert.Equal(t, []string{`ApiKey in="query", name="a? ~???"`}, header["Www-Authenticate"], "what a header cannot hold")
}

func TestNewAuthReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := admit.NewAuth(admit.AuthConfig{
		Sources: []admit.KeySource{
			admit.FromHeader("bad name"),
			{},
			admit.FromHeader("authorization"), admit.FromQuery(""), admit.FromCookie("a;b"),
			admit.FromBearer(), admit.FromBearer(), admit.FromHeader(""),
		},
		Realm:          "line\nbreak",
		MintedPrefixes: []string{"ok", "Not OK", ""},
	})
	require.Error(t, err)
	for _, part := range []string{
		"Store is nil", `Sources[0] has "bad name"`, "Sources[1] is the zero KeySource", "Sources[2] is the header Authorization", "Sources[3]",
		`Sources[4] has "a;b"`, "Sources[6] is Authorization: Bearer, which is there twice", `Sources[7] has ""`, "Realm", `MintedPrefixes[1]`, `MintedPrefixes[2]`,
	} {
		assert.ErrorContains(t, err, part)
	}
	assert.NotContains(t, err.Error(), "Sources[5]")
	assert.NotContains(t, err.Error(), "Sources is empty")
	assert.NotContains(t, err.Error(), "MintedPrefixes[0]")
	_, err = admit.NewAuth(admit.AuthConfig{Store: oneKey, Sources: []admit.KeySource{}})
	assert.ErrorContains(t, err, "Sources is empty")
	for realm, good := range map[string]bool{" !~": true, "a\x1fb": false, "a\x7fb": false, "é": false} {
		_, err = admit.NewAuth(admit.AuthConfig{Store: oneKey, Realm: realm})
		assert.Equal(t, good, err == nil, "%q", realm)
	}
}

func TestKeysInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		at := func(d time.Duration) time.Time { return start.Add(d) }
		store := admit.KeyMap{
			admit.DigestOf("early"):    {ID: "1", NotBefore: at(time.Hour)},
			admit.DigestOf("expiring"): {ID: "2", ExpiresAt: at(time.Hour)},
			admit.DigestOf("revoking"): {ID: "3", RevokedAt: at(time.Hour), ExpiresAt: at(2 * time.Hour)},
			admit.DigestOf("revoked"):  {ID: "4", RevokedAt: at(-time.Hour)},
		}
		h := admit.APIKey(store)(ok)
		with := func(token string) *http.Request { return get("/", "X-API-Key", token) }
		message := func(token string) string {
			e, _ := refused(t, h, with(token), 401)
			assert.Equal(t, "key_invalid", e.Code)
			return e.Message
		}
		assert.Equal(t, "The API key is not valid yet.", message("early"))
		allowed(t, h, with("expiring"))
		allowed(t, h, with("revoking"))
		assert.Equal(t, "The API key has been revoked.", message("revoked"))

		time.Sleep(time.Hour - 1)
		assert.Equal(t, "The API key is not valid yet.", message("early"))
		allowed(t, h, with("expiring"))
		allowed(t, h, with("revoking"))

		time.Sleep(time.Nanosecond)
		allowed(t, h, with("early"))
		assert.Equal(t, "The API key has expired.", message("expiring"))
		assert.Equal(t, "The API key has been revoked.", message("revoking"))
	})
}

func TestStoreOutageIsNever401(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		key    *admit.Key
		err    error
		status int
	}{
		"down":                {nil, errors.New("connection refused"), 503},
		"slow":                {nil, context.DeadlineExceeded, 503},
		"down, but with keys": {&admit.Key{ID: "x"}, errors.New("stale"), 503},
		"an Error of its own": {nil, admit.NewError(404, "hidden"), 503},
		"cancelled inside":    {nil, context.Canceled, 503},
		"not found":           {nil, fmt.Errorf("pg: %w", admit.ErrKeyNotFound), 401},
		"nothing":             {nil, nil, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger, log := logged()
			store := storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) { return test.key, test.err })
			h := (&admit.ErrorWriter{Logger: logger}).Wrap(newAuth(t, admit.AuthConfig{Store: store, Optional: true}).Wrap(ok))
			e, header := refused(t, h, get("/", "X-API-Key", "any"), test.status)
			if test.status == 503 {
				assert.Equal(t, "store_unavailable", e.Code)
				assert.NotEmpty(t, header.Get("Retry-After"))
				assert.NotContains(t, header, "Www-Authenticate")
				assert.Contains(t, log.String(), ": ask the key store: "+test.err.Error())
			}
		})
	}
}

func TestLongTokensAreNotHashed(t *testing.T) {
	t.Parallel()
	asked := 0
	a := newAuth(t, admit.AuthConfig{Store: storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) {
		asked++
		return &admit.Key{ID: "k"}, nil
	})})
	_, err := a.Verify(t.Context(), strings.Repeat("x", 4<<10))
	require.NoError(t, err)
	_, err = a.Verify(t.Context(), strings.Repeat("x", 4<<10+1))
	require.Error(t, err)
	assert.Equal(t, 1, asked)
}

func TestVerify(t *testing.T) {
	t.Parallel()
	a := newAuth(t, admit.AuthConfig{})
	k, err := a.Verify(t.Context(), "good")
	require.NoError(t, err)
	assert.Equal(t, "k1", k.ID)
	for token, code := range map[string]string{"": "key_missing", "bad": "key_invalid"} {
		k, err = a.Verify(t.Context(), token)
		var e *admit.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, code, e.Code)
		assert.Nil(t, k)
	}
}

func TestMintedPrefixes(t *testing.T) {
	t.Parallel()
	asked := map[admit.Digest]bool{}
	store := storeFunc(func(_ context.Context, d admit.Digest) (*admit.Key, error) {
		asked[d] = true
		return &admit.Key{ID: "k"}, nil
	})
	a := newAuth(t, admit.AuthConfig{Store: store, MintedPrefixes: []string{"acme"}})
	minted, digest, _ := admit.Mint("acme")
	_, err := a.Verify(t.Context(), minted)
	require.NoError(t, err)
	assert.True(t, asked[digest])

	last := "0"
	if strings.HasSuffix(minted, last) {
		last = "1"
	}
	foreign, _, _ := admit.Mint("acme_live")
	checked := func(body string) string { return body + checksum(body) }
	for token, looked := range map[string]bool{
		minted[:len(minted)-1] + last:               false, // a typo
		minted[:len(minted)-1]:                      false, // cut
		minted + "0":                                false,
		checked(minted[:len(minted)-6]):             true,
		checked(minted[:len(minted)-7] + "-"):       false, // a character that no token has
		checked("acme_-" + minted[6:len(minted)-6]): false,
		checked(minted[:len(minted)-7]):             false, // well checked, but too short
		checked(minted[:len(minted)-6] + "0"):       false,
		"acme_":                                     false,
		"acme_short":                                false,
		foreign[:len(foreign)-1]:                    true, // another prefix, of which nothing is known
		"acme":                                      true,
		"ACME_" + minted[5:]:                        true,
		"somebody's else":                           true,
	} {
		clear(asked)
		_, err := a.Verify(t.Context(), token)
		assert.Equal(t, looked, err == nil, token)
		assert.Equal(t, looked, len(asked) == 1, token)
	}
}

// checksum is that of a minted token, computed in another way.
func checksum(body string) string {
	sum := swapCase(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))).Text(62))
	return strings.Repeat("0", 6-len(sum)) + sum
}

// swapCase turns digits of 0-9a-zA-Z, which math/big has, into those of 0-9A-Za-z.
func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return r
	}, s)
}

func TestCredentialIsRemovedFromACopy(t *testing.T) {
	t.Parallel()
	type seen struct {
		header       http.Header
		uri, query   string
		form, cookie string
	}
	for name, test := range map[string]struct {
		path      string
		headers   []string
		wantURI   string
		wantOther string // Cookie
	}{
		"bearer":          {"/p?a=1", []string{"Authorization", "Bearer good", "X-Other", "1"}, "/p?a=1", ""},
		"header":          {"/p", []string{"X-Api-Key", "good"}, "/p", ""},
		"query first":     {"/p?api_key=good&a=1&b=%20", nil, "/p?a=1&b=%20", ""},
		"query last":      {"/p?a=1&api_key=good", nil, "/p?a=1", ""},
		"query alone":     {"/p?api_key=good", nil, "/p", ""},
		"query, escaped":  {"/p?%61pi_key=good&a", nil, "/p?a", ""},
		"query, doubled":  {"/p?api_key=&a=1&api_key=good", nil, "/p?a=1", ""},
		"cookie":          {"/p", []string{"Cookie", `a=1; key=good; b="2 3"; c`}, "/p", `a=1; b="2 3"; c`},
		"cookie alone":    {"/p", []string{"Cookie", "key=good"}, "/p", ""},
		"cookie, 2 lines": {"/p", []string{"Cookie", "key=good", "Cookie", "a=1"}, "/p", "a=1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got seen
			h := newAuth(t, admit.AuthConfig{Sources: allSources}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = seen{r.Header, r.RequestURI, r.URL.RawQuery, r.FormValue("api_key"), r.Header.Get("Cookie")}
			}))
			r := get(test.path, test.headers...)
			require.NoError(t, r.ParseForm())
			before := fmt.Sprint(r.Header, r.URL, r.RequestURI, r.Form)
			allowed(t, h, r)
			assert.Equal(t, before, fmt.Sprint(r.Header, r.URL, r.RequestURI, r.Form), "the original is untouched")
			assert.NotContains(t, fmt.Sprint(got), "good")
			assert.Equal(t, test.wantURI, got.uri)
			_, query, _ := strings.Cut(test.wantURI, "?")
			assert.Equal(t, query, got.query)
			assert.Equal(t, test.wantOther, got.cookie)
			assert.Empty(t, got.form)
			if name == "bearer" {
				assert.Equal(t, "1", got.header.Get("X-Other"))
			}
			if test.wantOther == "" {
				assert.NotContains(t, got.header, "Cookie")
			}

			keep := newAuth(t, admit.AuthConfig{Sources: allSources, KeepCredential: true}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				assert.Contains(t, fmt.Sprint(r.Header, r.RequestURI), "good")
			}))
			allowed(t, keep, get(test.path, test.headers...))
		})
	}
}

// A URI that has lost its query, or never was there, gets none.
func TestCredentialIsRemovedFromARequestWithoutURI(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{"", "/p"} {
		r := get("/p?a=1&api_key=good")
		r.RequestURI = uri
		var got string
		allowed(t, newAuth(t, admit.AuthConfig{Sources: allSources}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = r.RequestURI
			assert.Equal(t, "a=1", r.URL.RawQuery)
		})), r)
		assert.Equal(t, uri, got)
	}
}

func TestKeyFrom(t *testing.T) {
	t.Parallel()
	_, found := admit.KeyFrom(t.Context())
	assert.False(t, found)
	jwt := &admit.Key{ID: "jwt"}
	ctx := admit.WithKey(t.Context(), jwt)
	k, found := admit.KeyFrom(ctx)
	assert.True(t, found)
	assert.Same(t, jwt, k)
	_, found = admit.KeyFrom(admit.WithKey(ctx, nil))
	assert.False(t, found, "nil is nobody")
}

// An access log outside reads the key that was found inside by SeenKeyFrom; KeyFrom is
// for what is inside an Auth, and an inner one shadows an outer one only there.
func TestKeyFromOutside(t *testing.T) {
	t.Parallel()
	inner := admit.KeyMap{admit.DigestOf("inner"): {ID: "k2"}}
	var trace, seen []string
	id := func(k *admit.Key, found bool) string {
		if !found {
			return "nobody"
		}
		return k.ID
	}
	see := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			note := func() {
				trace = append(trace, id(admit.KeyFrom(r.Context())))
				seen = append(seen, id(admit.SeenKeyFrom(r.Context())))
			}
			note()
			next.ServeHTTP(w, r)
			note()
		})
	}
	h := wrap(ok, admit.RequestID, see, admit.APIKey(oneKey), see,
		newAuth(t, admit.AuthConfig{Store: inner, Sources: []admit.KeySource{admit.FromHeader("X-Inner")}}).Wrap, see)
	allowed(t, h, get("/", "X-API-Key", "good", "X-Inner", "inner"))
	assert.Equal(t, []string{"nobody", "k1", "k2", "k2", "k1", "nobody"}, trace)
	assert.Equal(t, []string{"nobody", "k1", "k2", "k2", "k2", "k2"}, seen)

	// A request that a handler makes out of another does not get its identity.
	logger, log := logged()
	batch := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := get("/", "X-API-Key", "good").WithContext(r.Context())
		admit.APIKey(oneKey)(ok).ServeHTTP(httptest.NewRecorder(), first)
		admit.RequireScopes("orders:write")(ok).ServeHTTP(w, get("/").WithContext(r.Context()))
	}), admit.RequestID, (&admit.ErrorWriter{Logger: logger}).Wrap)
	refused(t, batch, get("/"), 500)
	assert.Contains(t, log.String(), "no key in the context")
}

// One Auth in a Policy inside another that has it too: the credential is gone there,
// and the caller known.
func TestSameAuthTwice(t *testing.T) {
	t.Parallel()
	a := newAuth(t, admit.AuthConfig{})
	h := wrap(ok, a.Wrap, a.Wrap)
	allowed(t, h, get("/", "X-API-Key", "good"))
	refused(t, h, get("/"), 401)
	refused(t, h, get("/", "X-API-Key", "bad"), 401)
	other := newAuth(t, admit.AuthConfig{})
	refused(t, wrap(ok, a.Wrap, other.Wrap), get("/", "X-API-Key", "good"), 401)
}

func TestRequireScopes(t *testing.T) {
	t.Parallel()
	both := admit.RequireScopes("orders:read", "orders:write")(ok)
	admin := admit.RequireScopes("orders:read", "admin")(ok)
	bearer := admit.APIKey(oneKey)
	header := newAuth(t, admit.AuthConfig{Sources: []admit.KeySource{admit.FromHeader("X-API-Key")}}).Wrap
	r := get("/", "X-API-Key", "good")

	allowed(t, bearer(both), r)
	e, h := refused(t, bearer(admin), r, 403)
	assert.Equal(t, "scope_required", e.Code)
	assert.Contains(t, e.Message, "orders:read admin")
	assert.Equal(t, []string{`Bearer error="insufficient_scope", scope="orders:read admin"`}, h["Www-Authenticate"])
	_, h = refused(t, header(admin), r, 403)
	assert.NotContains(t, h, "Www-Authenticate", "no Bearer is taken there")

	ctx := admit.WithKey(t.Context(), &admit.Key{ID: "k", Scopes: []string{"admin", "orders:read"}})
	allowed(t, admin, get("/").WithContext(ctx))
	refused(t, both, get("/").WithContext(ctx), 403)

	logger, log := logged()
	refused(t, (&admit.ErrorWriter{Logger: logger}).Wrap(both), get("/"), 500)
	assert.Contains(t, log.String(), "put an Auth")
	optional := newAuth(t, admit.AuthConfig{Optional: true}).Wrap
	refused(t, optional(both), get("/"), 500)
	refused(t, both, get("/").WithContext(admit.WithKey(t.Context(), nil)), 500)
	assert.Panics(t, func() { admit.RequireScopes("a")(nil) })

	for _, scopes := range [][]string{nil, {""}, {"a b"}, {`a"`}, {`a\`}, {"é"}, {"a\x7f"}, {"a", ""}} {
		assert.Panics(t, func() { admit.RequireScopes(scopes...) }, "%q", scopes)
	}
	assert.NotPanics(t, func() { admit.RequireScopes("!#[]~") })
}

// Every refusal, with a marked token and a marked cause: neither is anywhere.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	const token, cause = "tok_MARKEDTOKEN", "MARKEDCAUSE"
	logger, log := logged()
	var observed []string
	ew := &admit.ErrorWriter{Logger: logger, Observe: func(_ *http.Request, e *admit.Error) { observed = append(observed, e.Error()) }}
	store := func(k *admit.Key, err error) admit.KeyStore {
		return storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) { return k, err })
	}
	plans, err := admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro", Features: []string{"history"}})
	require.NoError(t, err)
	auth := func(s admit.KeyStore) admit.Middleware {
		return newAuth(t, admit.AuthConfig{Store: s, Sources: allSources}).Wrap
	}
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	free := &admit.Key{ID: "k", Plan: "free"}
	handlers := map[string]http.Handler{
		"unknown":      auth(store(nil, admit.ErrKeyNotFound))(ok),
		"unknown why":  auth(store(nil, fmt.Errorf("%s: %w", cause, admit.ErrKeyNotFound)))(ok),
		"expired":      auth(store(&admit.Key{ID: "k", ExpiresAt: past}, nil))(ok),
		"early":        auth(store(&admit.Key{ID: "k", NotBefore: future}, nil))(ok),
		"revoked":      auth(store(&admit.Key{ID: "k", RevokedAt: past}, nil))(ok),
		"outage":       auth(store(nil, errors.New(cause)))(ok),
		"minted":       newAuth(t, admit.AuthConfig{Sources: allSources, MintedPrefixes: []string{"tok"}}).Wrap(ok),
		"scope":        auth(store(free, nil))(admit.RequireScopes("admin")(ok)),
		"plan":         auth(store(free, nil))(plans.AtLeast("pro")(ok)),
		"unknown plan": auth(store(&admit.Key{ID: "k", Plan: "x"}, nil))(plans.Features("history")(ok)),
		"handler":      auth(store(free, nil))(fails(errors.New(cause))),
		"handler 409":  auth(store(free, nil))(fails(admit.NewError(409, "").WithCause(errors.New(cause)))),
		"panic":        auth(store(free, nil))(panics(cause)),
		"text":         auth(store(free, nil))(admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, cause, 500) }))),
		"not found":    auth(store(free, nil))(admit.Mux(http.NewServeMux())),
		"method":       auth(store(free, nil))(admit.Methods("PUT")(ok)),
	}
	requests := map[string]func() *http.Request{
		"bearer": func() *http.Request { return get("/", "Authorization", "Bearer "+token) },
		"header": func() *http.Request { return get("/", "X-Api-Key", token) },
		"query":  func() *http.Request { return get("/?a=1&api_key=" + token) },
		"cookie": func() *http.Request { return get("/", "Cookie", "a=1; key="+token) },
		"two":    func() *http.Request { return get("/?api_key="+token, "Authorization", "Bearer "+token) },
		"long":   func() *http.Request { return get("/", "X-Api-Key", token+strings.Repeat("x", 5000)) },
	}
	for name, h := range handlers {
		h = wrap(h, admit.RequestID, ew.Wrap, admit.Recover)
		for kind, request := range requests {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request())
			require.GreaterOrEqual(t, w.Code, 400, "%s, %s", name, kind)
			answer := fmt.Sprint(w.Header(), w.Body)
			assert.NotContains(t, answer, "MARKED", "%s, %s", name, kind)
		}
	}
	assert.NotContains(t, log.String(), "MARKEDTOKEN")
	assert.NotContains(t, strings.Join(observed, "\n"), "MARKEDTOKEN")
	assert.Contains(t, log.String(), cause, "causes are logged")
}

func TestAPIKeyAllocations(t *testing.T) {
	token, digest, _ := admit.Mint("acme")
	h := admit.APIKey(admit.KeyMap{digest: {ID: "k"}})(ok)
	w, r := newDiscard(), get("/", "Authorization", "Bearer "+token, "User-Agent", "x", "Accept", "*/*")
	allocs(t, 4, func() { h.ServeHTTP(w, r) }) // state, request, and two for the header
	accepted := admit.APIKey(admit.KeyMap{digest: {ID: "k"}})(admit.Accept(jsonType)(ok))
	allocs(t, 4, func() { clear(w.h); accepted.ServeHTTP(w, r) }) // Accept uses the same state and copy
	scoped := admit.RequireScopes("a")(ok)
	r = r.WithContext(admit.WithKey(t.Context(), &admit.Key{ID: "k", Scopes: []string{"a"}}))
	allocs(t, 0, func() { scoped.ServeHTTP(w, r) })
}

// Whatever stands in a request, only the token that is there whole is let in.
func FuzzCredentials(f *testing.F) {
	for _, seed := range [][3]string{
		{"Bearer good", "", ""},
		{"", "good", ""},
		{"", "", "api_key=good"},
		{"bearer  good ", "", "a=b"},
		{"Basic x", "", "api_key=%67ood"},
		{"Bearer\tgood", "good", "api_key"},
		{"", "", "api_key=%zz&;&=&api_key=good"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	a, err := admit.NewAuth(admit.AuthConfig{Store: oneKey, Sources: allSources})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, authorization, header, query string) {
		r := get("/")
		r.URL.RawQuery = query
		r.RequestURI = "/?" + query
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		if header != "" {
			r.Header["X-Api-Key"] = []string{header}
		}
		w := httptest.NewRecorder()
		a.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			given := 0
			if fields := strings.FieldsFunc(authorization, func(r rune) bool { return r == ' ' || r == '\t' }); len(fields) == 2 && strings.EqualFold(fields[0], "Bearer") && fields[1] == "good" {
				given++
				assert.NotContains(t, r.Header, "Authorization")
			}
			if strings.Trim(header, " \t") == "good" {
				given++
				assert.NotContains(t, r.Header, "X-Api-Key")
			}
			if r.URL.RawQuery != query {
				given++
				assert.Empty(t, r.URL.Query().Get("api_key"))
			}
			assert.Equal(t, 1, given)
			w.WriteHeader(http.StatusNoContent)
		})).ServeHTTP(w, r)
		assert.Contains(t, []int{204, 400, 401}, w.Code)
	})
}

func BenchmarkAPIKey(b *testing.B) {
	keys := admit.KeyMap{}
	var token string
	for range 1000 {
		t, digest, _ := admit.Mint("acme")
		keys[digest], token = &admit.Key{ID: digest.String()}, t
	}
	h := admit.APIKey(keys)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w := newDiscard()
	for name, r := range map[string]*http.Request{
		"accepted": get("/", "Authorization", "Bearer "+token),
		"wrong":    get("/", "Authorization", "Bearer "+token+"x"),
		"missing":  get("/"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}

// What an Auth has found for one handler is not for the next; only the log sees it.
func TestKeyIsForOneHandler(t *testing.T) {
	t.Parallel()
	id := func(k *admit.Key, found bool) string { return fmt.Sprint(k != nil && k.ID == "k1", found) }
	for name, around := range map[string]admit.Middleware{
		"bare":       func(h http.Handler) http.Handler { return h },
		"in a chain": func(h http.Handler) http.Handler { return wrap(h, admit.RequestID, admit.Recover) },
		"optional":   newAuth(t, admit.AuthConfig{Optional: true, Sources: []admit.KeySource{admit.FromHeader("X-Other")}}).Wrap,
	} {
		logger, log := logged()
		h := wrap(inTurn(
			admit.APIKey(oneKey)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				assert.Equal(t, "true true", id(admit.KeyFrom(r.Context())), name)
				assert.Equal(t, "key:k1", admit.Caller(r), name)
			})),
			http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				assert.Equal(t, "false false", id(admit.KeyFrom(r.Context())), name)
				assert.Equal(t, "addr:192.0.2.1", admit.Caller(r), name)
			}),
			(&admit.ErrorWriter{Logger: logger}).Wrap(admit.RequireScopes("orders:read")(ok)),
		), around)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/", "X-API-Key", "good"))
		assert.Equal(t, http.StatusInternalServerError, w.Code, name)
		assert.Contains(t, log.String(), "no key in the context", name)
	}
}

// The log sees who it was, by whatever wrapper it was found, and also who was refused.
func TestSeenKeyFrom(t *testing.T) {
	t.Parallel()
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	store := admit.KeyMap{}
	for _, k := range []*admit.Key{
		{ID: "good", Plan: "pro"},
		{ID: "expired", ExpiresAt: past},
		{ID: "early", NotBefore: future},
		{ID: "revoked", RevokedAt: past},
		{ID: "out of plan", Plan: "free"},
	} {
		k.Owner = "owner of " + k.ID
		store[admit.DigestOf(k.ID)] = k
	}
	jwt := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), store[admit.DigestOf(r.Header.Get("X-API-Key"))])))
		})
	}
	pro := newPlans(t).AtLeast("pro")
	for wrapper, identity := range map[string]admit.Middleware{"Auth": admit.APIKey(store), "WithKey": jwt} {
		for token, status := range map[string]int{"good": 200, "expired": 401, "early": 401, "revoked": 401, "out of plan": 402, "unknown": 401, "": 401} {
			if wrapper == "WithKey" && status == 401 {
				continue // it is the wrapper that refuses
			}
			var seen, observed *admit.Key
			ew := &admit.ErrorWriter{Observe: func(r *http.Request, _ *admit.Error) { observed, _ = admit.SeenKeyFrom(r.Context()) }}
			h := wrap(ok, admit.RequestID, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, found := admit.SeenKeyFrom(r.Context())
					assert.False(t, found, "before next")
					next.ServeHTTP(w, r)
					seen, found = admit.SeenKeyFrom(r.Context())
					assert.Equal(t, seen != nil, found)
					_, found = admit.KeyFrom(r.Context())
					assert.False(t, found, "no decision outside")
				})
			}, ew.Wrap, identity, pro)
			r := get("/")
			if token != "" {
				r.Header.Set("X-API-Key", token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, status, w.Code, "%s, %s", wrapper, token)
			assert.Same(t, store[admit.DigestOf(token)], seen, "%s, %s", wrapper, token)
			if status != 200 {
				assert.Same(t, store[admit.DigestOf(token)], observed, "%s, %s", wrapper, token)
			}
		}
	}
}

// A redirect of what a key in the query has let in is not stored, and does not have it.
func TestRedirectsInsideAQueryKey(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.Handle("/dir/", ok)
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/dir/?"+r.URL.RawQuery, http.StatusFound)
	})
	mux.HandleFunc("/kept", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private")
		http.Redirect(w, r, "/dir/", http.StatusFound)
	})
	query := newAuth(t, admit.AuthConfig{Sources: []admit.KeySource{admit.FromQuery("key"), admit.FromHeader("X-API-Key")}}).Wrap
	for name, around := range map[string]admit.Middleware{
		"Auth": query, "in a chain": func(h http.Handler) http.Handler {
			return wrap(h, admit.RequestID, query, admit.Recover, admit.Timeout(time.Minute))
		},
	} {
		for path, want := range map[string]string{
			"/dir?key=good&a=1": "no-store /dir/?a=1", "/moved?key=good&a=1": "no-store /dir/?a=1", "/kept?key=good": "private /dir/", "/dir/?key=good": " ",
		} {
			w := httptest.NewRecorder()
			around(mux).ServeHTTP(w, get(path))
			assert.Equal(t, want, w.Header().Get("Cache-Control")+" "+w.Header().Get("Location"), "%s: %s", name, path)
			assert.NotContains(t, w.Body.String(), "good", "%s: %s", name, path)
		}
		w := httptest.NewRecorder()
		around(mux).ServeHTTP(w, get("/dir?a=1", "X-API-Key", "good"))
		assert.Empty(t, w.Header().Get("Cache-Control"), "%s: a header is not redirected", name)
		// Nor is what another handler answers after it.
		w = httptest.NewRecorder()
		around(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, get("/?key=good"))
		mux.ServeHTTP(w, get("/moved"))
		assert.Empty(t, w.Header().Get("Cache-Control"), name)
	}
}
