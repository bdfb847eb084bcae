package admit_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func prefixes(all ...string) []netip.Prefix {
	var parsed []netip.Prefix
	for _, p := range all {
		parsed = append(parsed, netip.MustParsePrefix(p))
	}
	return parsed
}

func TestNetworksOfAKey(t *testing.T) {
	t.Parallel()
	plans := newPlans(t)
	limiter := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(1000)}})
	for name, test := range map[string]struct {
		networks []netip.Prefix
		remote   string
		allowed  bool
	}{
		"none":                     {nil, "192.0.2.1:1", true},
		"inside":                   {prefixes("192.0.2.0/24"), "192.0.2.1:1", true},
		"inside the second":        {prefixes("198.51.100.7/32", "192.0.2.0/24"), "192.0.2.255:1", true},
		"outside":                  {prefixes("192.0.2.0/24", "198.51.100.7/32"), "192.0.3.0:1", false},
		"an address on IPv6":       {prefixes("2001:db8::/48"), "[2001:db8:0:1::1]:1", true},
		"another on IPv6":          {prefixes("2001:db8::/48"), "[2001:db8:1::1]:1", false},
		"IPv4 mapped to IPv6":      {prefixes("192.0.2.0/24"), "[::ffff:192.0.2.1]:1", true},
		"a mapped network":         {prefixes("::ffff:192.0.2.0/120"), "192.0.2.1:1", true},
		"a mapped network, not in": {prefixes("::ffff:192.0.2.0/120"), "192.0.3.1:1", false},
		"with a zone":              {prefixes("fe80::/10"), "[fe80::1%eth0]:1", true},
		"no address":               {prefixes("0.0.0.0/0", "::/0"), "@", false},
		"IPv6 is not IPv4":         {prefixes("0.0.0.0/0"), "[2001:db8::1]:1", false},
		"a prefix that is not one": {[]netip.Prefix{{}}, "192.0.2.1:1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := &admit.Key{ID: "k", Plan: "pro", Scopes: []string{"a"}, Networks: test.networks}
			store := storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) { return key, nil })
			auth := newAuth(t, admit.AuthConfig{Store: store})
			jwt := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
				})
			}
			for at, h := range map[string]http.Handler{
				"Auth":     auth.Wrap(ok),
				"scopes":   jwt(admit.RequireScopes("a")(ok)),
				"plans":    jwt(plans.AtLeast("pro")(ok)),
				"features": jwt(plans.Features("history")(ok)),
				"limiter":  jwt(limiter.Wrap(ok)),
				"policy":   admit.Policy{Identity: jwt, Scopes: []string{"a"}}.Wrap(ok),
				"identity": admit.Policy{Identity: jwt}.Wrap(ok), // though nobody inside uses the key
			} {
				r := get("/", "X-API-Key", "good")
				r.RemoteAddr = test.remote
				if test.allowed {
					allowed(t, h, r)
					continue
				}
				e, _ := refused(t, h, r, 403)
				assert.Equal(t, "address_not_allowed", e.Code, at)
			}
		})
	}
}

// The address is the client's behind proxies, as everywhere.
func TestNetworksBehindAProxy(t *testing.T) {
	t.Parallel()
	store := admit.KeyMap{admit.DigestOf("good"): {ID: "k", Networks: prefixes("198.51.100.0/24")}}
	h := admit.Policy{ClientIP: anyProxy, Auth: newAuth(t, admit.AuthConfig{Store: store})}.Wrap(ok)
	allowed(t, h, get("/", "X-API-Key", "good", "X-Forwarded-For", "198.51.100.7"))
	refused(t, h, get("/", "X-API-Key", "good", "X-Forwarded-For", "203.0.113.7"), 403)
	refused(t, h, get("/", "X-API-Key", "good"), 403)
}

// 401 comes before 403: who has no valid key does not learn where it would be taken.
func TestNetworksAfterStatus(t *testing.T) {
	t.Parallel()
	store := admit.KeyMap{admit.DigestOf("old"): {ID: "k", ExpiresAt: time.Now().Add(-time.Hour), Networks: prefixes("198.51.100.0/24")}}
	refused(t, newAuth(t, admit.AuthConfig{Store: store}).Wrap(ok), get("/", "X-API-Key", "old"), 401)
}

func TestVerifyFrom(t *testing.T) {
	t.Parallel()
	auth := newAuth(t, admit.AuthConfig{Store: admit.KeyMap{
		admit.DigestOf("bound"): {ID: "bound", Networks: prefixes("192.0.2.0/24")},
		admit.DigestOf("free"):  {ID: "free"},
	}})
	inside, outside := netip.MustParseAddr("::ffff:192.0.2.9"), netip.MustParseAddr("198.51.100.1")
	for _, test := range []struct {
		token  string
		addr   netip.Addr
		status int
	}{
		{"bound", inside, 0},
		{"bound", outside, 403},
		{"bound", netip.Addr{}, 403},
		{"free", outside, 0},
		{"free", netip.Addr{}, 0},
		{"unknown", inside, 401},
		{"", inside, 401},
	} {
		key, err := auth.VerifyFrom(t.Context(), test.token, test.addr)
		if test.status == 0 {
			require.NoError(t, err)
			assert.Equal(t, test.token, key.ID)
			continue
		}
		var e *admit.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, test.status, e.Status)
		assert.Nil(t, key)
	}
	_, err := auth.Verify(t.Context(), "bound")
	assert.ErrorContains(t, err, "address_not_allowed", "no address is known")
	_, err = auth.Verify(t.Context(), "free")
	assert.NoError(t, err)
}

// A key without an ID would be one bucket with all others, and nobody in the log.
func TestKeyWithoutAnID(t *testing.T) {
	t.Parallel()
	nameless := &admit.Key{Plan: "pro", Scopes: []string{"a"}}
	_, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("x"): nameless}})
	assert.ErrorContains(t, err, "AuthConfig.Store[2d711642...].ID is empty")
	_, err = admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("x"): {ID: "k", Limits: []admit.Limit{{Requests: 1}}}}})
	assert.ErrorContains(t, err, "AuthConfig.Store[2d711642...].Limits[0].Per is 0s")
	newAuth(t, admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("x"): nil}})

	found := storeFunc(func(context.Context, admit.Digest) (*admit.Key, error) { return nameless, nil })
	jwt := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.WithContext(admit.WithKey(r.Context(), nameless))
			_, known := admit.KeyFrom(r.Context())
			assert.False(t, known)
			next.ServeHTTP(w, r)
		})
	}
	never := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") })
	plans := newPlans(t)
	for name, h := range map[string]http.Handler{
		"Auth":     newAuth(t, admit.AuthConfig{Store: found}).Wrap(never),
		"optional": newAuth(t, admit.AuthConfig{Store: found, Optional: true}).Wrap(never),
		"scopes":   jwt(admit.RequireScopes("a")(never)),
		"plans":    jwt(plans.AtLeast("pro")(never)),
		"limiter":  jwt(admit.RateLimit(admit.PerHour(1))(never)),
		"identity": admit.Policy{Identity: jwt}.Wrap(never),
		"counted by": jwt(newLimiter(t, admit.LimiterConfig{
			Limits: []admit.Limit{admit.PerHour(1)}, CountBy: func(*http.Request) string { return "x" },
		}).Wrap(never)),
	} {
		logger, log := logged()
		refused(t, (&admit.ErrorWriter{Logger: logger}).Wrap(h), get("/", "X-API-Key", "any"), 500)
		assert.Contains(t, log.String(), "has no ID", name)
	}
	_, err = newAuth(t, admit.AuthConfig{Store: found}).Verify(t.Context(), "any")
	assert.ErrorContains(t, err, "has no ID")
}

func TestKeyStatus(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	before, after := now.Add(-time.Nanosecond), now.Add(time.Nanosecond)
	for _, test := range []struct {
		key    admit.Key
		status admit.KeyStatus
		text   string
	}{
		{admit.Key{}, admit.KeyValid, "valid"},
		{admit.Key{NotBefore: now, ExpiresAt: after, RevokedAt: after}, admit.KeyValid, "valid"},
		{admit.Key{NotBefore: after}, admit.KeyEarly, "early"},
		{admit.Key{ExpiresAt: now}, admit.KeyExpired, "expired"},
		{admit.Key{NotBefore: after, ExpiresAt: before}, admit.KeyExpired, "expired"},
		{admit.Key{RevokedAt: now}, admit.KeyRevoked, "revoked"},
		{admit.Key{NotBefore: after, ExpiresAt: before, RevokedAt: before}, admit.KeyRevoked, "revoked"},
	} {
		assert.Equal(t, test.status, test.key.Status(now), "%+v", test.key)
		assert.Equal(t, test.text, test.key.Status(now).String())
	}
	assert.Equal(t, "KeyStatus(9)", admit.KeyStatus(9).String())
}

func TestDigestIsText(t *testing.T) {
	t.Parallel()
	d := admit.DigestOf("token")
	text, err := json.Marshal(map[admit.Digest]admit.Digest{d: d})
	require.NoError(t, err)
	assert.Equal(t, `{"`+d.String()+`":"`+d.String()+`"}`, string(text))
	var back map[admit.Digest]admit.Digest
	require.NoError(t, json.Unmarshal(text, &back))
	assert.Equal(t, map[admit.Digest]admit.Digest{d: d}, back)

	for _, wrong := range []string{"", "00", d.String() + "0", "z" + d.String()[1:]} {
		kept := d
		assert.Error(t, kept.UnmarshalText([]byte(wrong)), wrong)
		assert.Equal(t, d, kept, "left alone")
	}
}

func TestStoreDownString(t *testing.T) {
	t.Parallel()
	for mode, text := range map[admit.StoreDown]string{
		admit.LimitLocally: "LimitLocally", admit.AdmitAll: "AdmitAll", admit.RefuseAll: "RefuseAll", 7: "StoreDown(7)",
	} {
		assert.Equal(t, text, mode.String())
	}
}

func TestFromAuthorization(t *testing.T) {
	t.Parallel()
	h := newAuth(t, admit.AuthConfig{Realm: "api", Sources: []admit.KeySource{admit.FromAuthorization("Token"), admit.FromBearer()}}).Wrap(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			assert.NotContains(t, r.Header, "Authorization")
		}))
	allowed(t, h, get("/", "Authorization", "Token good"))
	allowed(t, h, get("/", "Authorization", "tOKEN  good "))
	allowed(t, h, get("/", "Authorization", "Bearer good"))
	for _, value := range []string{"Token", "Token ", "bearer \t", "TOKEN\t"} {
		e, header := refused(t, h, get("/", "Authorization", value), 401)
		assert.Equal(t, "key_invalid", e.Code, value)
		assert.Equal(t, []string{`Token realm="api", error="invalid_token"`, `Bearer realm="api", error="invalid_token"`}, header["Www-Authenticate"])
	}
	for _, value := range []string{"Tokengood", "Token\x00good", "Basic good", "good", ""} {
		e, header := refused(t, h, get("/", "Authorization", value), 401)
		assert.Equal(t, "key_missing", e.Code, value)
		assert.Equal(t, []string{`Token realm="api"`, `Bearer realm="api"`}, header["Www-Authenticate"])
		assert.Equal(t, "An API key is required: Authorization: Token or Authorization: Bearer.", e.Message)
	}
	_, header := refused(t, h, get("/", "Authorization", "Token bad"), 401)
	assert.Equal(t, []string{`Token realm="api", error="invalid_token"`, `Bearer realm="api", error="invalid_token"`}, header["Www-Authenticate"])

	assert.Equal(t, admit.FromBearer(), admit.FromAuthorization("Bearer"))
	for scheme, fault := range map[string]string{"": "not the name of", "a b": "not the name of", "basic": "a name and a password"} {
		_, err := admit.NewAuth(admit.AuthConfig{Store: oneKey, Sources: []admit.KeySource{admit.FromAuthorization(scheme)}})
		assert.ErrorContains(t, err, fault, scheme)
	}
	_, err := admit.NewAuth(admit.AuthConfig{Store: oneKey, Sources: []admit.KeySource{admit.FromBearer(), admit.FromAuthorization("BEARER")}})
	assert.ErrorContains(t, err, "is there twice")
}

// A challenge for insufficient scope is that of Bearer tokens, whatever their spelling.
func TestFromAuthorizationIsBearer(t *testing.T) {
	t.Parallel()
	h := newAuth(t, admit.AuthConfig{Sources: []admit.KeySource{admit.FromAuthorization("bearer")}}).Wrap(admit.RequireScopes("admin")(ok))
	_, header := refused(t, h, get("/", "Authorization", "Bearer good"), 403)
	assert.Contains(t, header.Get("WWW-Authenticate"), "insufficient_scope")
	h = newAuth(t, admit.AuthConfig{Sources: []admit.KeySource{admit.FromAuthorization("Token")}}).Wrap(admit.RequireScopes("admin")(ok))
	_, header = refused(t, h, get("/", "Authorization", "Token good"), 403)
	assert.Empty(t, header.Get("WWW-Authenticate"))
}
