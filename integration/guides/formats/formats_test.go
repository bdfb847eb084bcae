// Package formats_test holds the page about formats against what is written and read.
package formats_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"hash/crc32"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/redislimit"
	"github.com/admit-go/admit/sqlkeys"
	"github.com/admit-go/admit/sqlquota"
)

var code = regexp.MustCompile("`([^`]+)`")

// table returns the rows of the table under a heading: what is in code font in each cell.
func table(t testing.TB, heading string) [][][]string {
	t.Helper()
	_, section, found := strings.Cut(guide.Text(t, "formats"), "\n## "+heading+"\n")
	require.True(t, found, heading)
	section, _, _ = strings.Cut(section, "\n## ")
	var rows [][][]string
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		var cells [][]string
		for cell := range strings.SplitSeq(strings.Trim(line, "| \n"), " | ") {
			var names []string
			for _, match := range code.FindAllStringSubmatch(cell, -1) {
				names = append(names, match[1])
			}
			cells = append(cells, names)
		}
		rows = append(rows, cells)
	}
	return rows[1:] // without the head
}

// names returns what the first cells of a table name.
func names(t testing.TB, heading string) []string {
	t.Helper()
	var all []string
	for _, row := range table(t, heading) {
		all = append(all, row[0]...)
	}
	return all
}

// members adds the paths of all members of a JSON value. Those of meta are anybody's.
func members(into map[string]bool, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if strings.HasSuffix(path, ".meta") {
			return
		}
		for name, value := range v {
			inside := strings.TrimPrefix(path+"."+name, ".")
			into[inside] = true
			members(into, inside, value)
		}
	case []any:
		for _, value := range v {
			members(into, path+"[]", value)
		}
	}
}

func decode(t testing.TB, text []byte) any {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal(text, &v), "%s", text)
	return v
}

func ok(http.ResponseWriter, *http.Request) {}

// refusals are errors of every kind, as the clients of one caller get them.
func refusals(t testing.TB, accept string) []*http.Response {
	t.Helper()
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 1, Every: admit.Month}}},
		admit.Plan{Name: "pro", UpgradeURL: "https://example.com/pro", Quotas: []admit.Quota{{Requests: 100, Every: admit.Month}}},
	)
	require.NoError(t, err)
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("free"): {ID: "k-1", Plan: "free"}}})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(1)}})
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	require.NoError(t, err)
	var all []*http.Response
	send := func(p admit.Policy, h http.HandlerFunc, method, body string, headers ...string) {
		r := httptest.NewRequestWithContext(t.Context(), method, "/", strings.NewReader(body))
		r.Header.Set("X-Request-Id", "7f3a")
		r.Header.Set("X-API-Key", "free")
		r.Header.Set("Accept", accept)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		p.Wrap(h).ServeHTTP(w, r)
		if w.Code >= 400 {
			all = append(all, w.Result())
		}
	}
	for range 2 {
		send(admit.Policy{Limiter: limiter}, ok, "GET", "")
	}
	for range 2 {
		send(admit.Policy{Auth: auth, Quotas: quotas}, ok, "GET", "")
	}
	send(admit.Policy{Auth: auth}, ok, "GET", "", "X-API-Key", "unknown")
	send(admit.Policy{Auth: auth, Scopes: []string{"write"}}, ok, "GET", "")
	send(admit.Policy{Auth: auth, Plans: plans, AtLeast: "pro"}, ok, "GET", "")
	send(admit.Policy{Methods: []string{"GET"}}, ok, "PUT", "")
	send(admit.Policy{Accept: []string{"text/csv"}}, ok, "GET", "")
	send(admit.Policy{ContentType: []string{"application/json"}}, ok, "POST", "x", "Content-Type", "text/plain")
	send(admit.Policy{}, admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := admit.Decode[struct{ Price int }](r)
		return err
	}).ServeHTTP, "POST", `{"price": "x"}`)
	require.Len(t, all, 9)
	return all
}

func TestErrors(t *testing.T) {
	t.Parallel()
	envelope, problem, headers := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, of := range []struct {
		accept string
		into   map[string]bool
	}{{"application/json", envelope}, {"application/problem+json", problem}} {
		for i, res := range refusals(t, of.accept) {
			text := guide.Dump(t, res)
			_, body, _ := strings.Cut(text, "\n\n")
			members(of.into, "", decode(t, []byte(body)))
			for name := range res.Header {
				headers[name] = true
			}
			if i == 0 { // the rate limit
				guide.Shows(t, "formats", "json", body)
			}
		}
	}
	documented := names(t, "Errors")
	assert.ElementsMatch(t, slices.Collect(maps.Keys(envelope)), documented)

	for _, name := range []string{"result", "message", "limits"} {
		documented = slices.DeleteFunc(documented, func(s string) bool { return s == name })
	}
	assert.ElementsMatch(t, slices.Collect(maps.Keys(problem)), append(documented, "type", "title", "status", "detail", "violated-policies"))

	var known []string
	for _, row := range table(t, "Headers") {
		for _, name := range slices.Concat(row...) {
			known = append(known, http.CanonicalHeaderKey(name))
		}
	}
	for name := range headers {
		if name != "Content-Length" {
			assert.Contains(t, known, name)
		}
	}
	for _, name := range names(t, "Headers") {
		assert.True(t, headers[http.CanonicalHeaderKey(name)], name)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile("^" + strings.TrimSpace(guide.Blocks(t, "formats", "text")[0]) + "$")
	token, digest, _ := admit.Mint("acme")
	require.Regexp(t, pattern, token)
	assert.Equal(t, admit.DigestOf(token), digest)
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum, checksum := crc32.ChecksumIEEE([]byte(token[:len(token)-6])), ""
	for range 6 {
		checksum = digits[sum%62:sum%62+1] + checksum
		sum /= 62
	}
	assert.Equal(t, checksum, token[len(token)-6:])
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	now := time.Now()
	key := admit.Key{
		ID: "k-1", Owner: "ACME", Plan: "pro", Scopes: []string{"read"}, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Limits:    []admit.Limit{{Name: "minute", Requests: 100, Per: time.Minute, Burst: 10}},
		Quotas:    []admit.Quota{{Name: "calls", Requests: 100, Every: admit.Month, Soft: true}},
		NotBefore: now, ExpiresAt: now.Add(time.Hour), RevokedAt: now, Meta: map[string]string{"hint": "x"},
	}
	for _, v := range []any{key, key.Limits[0], key.Quotas[0]} { // a new field is to be set here
		for i := range reflect.TypeOf(v).NumField() {
			assert.False(t, reflect.ValueOf(v).Field(i).IsZero(), reflect.TypeOf(v).Field(i).Name)
		}
	}
	require.NoError(t, admit.WriteKeyFile(path, admit.KeyMap{admit.DigestOf("token"): &key}))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	written := map[string]bool{}
	members(written, "", decode(t, text))
	assert.ElementsMatch(t, slices.Collect(maps.Keys(written)), names(t, "Key file"))

	require.NoError(t, os.WriteFile(path, []byte(`{"format": 3, "keys": [
		{"id": "a", "digest": "`+admit.DigestOf("a").String()+`", "later": 1},
		{"id": "b", "digest": "`+admit.DigestOf("b").String()+`", "later": 1, "critical": ["later"]}]}`), 0o600))
	keys, err := admit.OpenKeyFile(path)
	require.NoError(t, err)
	defer keys.Close()
	_, err = keys.LookupKey(t.Context(), admit.DigestOf("a"))
	require.NoError(t, err)
	_, err = keys.LookupKey(t.Context(), admit.DigestOf("b"))
	require.ErrorIs(t, err, admit.ErrKeyNotFound)
	_, err = admit.ReadKeyFile(path)
	assert.Error(t, err)
}

// The columns of the page are those of the tables that the schemas make.
func TestTables(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "db"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	columns := func(table string) []string {
		rows, err := db.QueryContext(t.Context(), "SELECT name FROM pragma_table_info(?)", table)
		require.NoError(t, err)
		defer rows.Close()
		var all []string
		for rows.Next() {
			var name string
			require.NoError(t, rows.Scan(&name))
			all = append(all, name)
		}
		require.NoError(t, rows.Err())
		return all
	}
	for _, schema := range []string{sqlkeys.Schema(sqlkeys.SQLite), sqlquota.Schema(sqlquota.SQLite)} {
		_, err := db.ExecContext(t.Context(), schema)
		require.NoError(t, err)
	}
	assert.ElementsMatch(t, columns("admit_keys"), names(t, "Table of sqlkeys"))
	quotas := table(t, "Tables of sqlquota")
	require.Len(t, quotas, 3)
	for _, row := range quotas {
		assert.ElementsMatch(t, columns(row[0][0]), row[1], row[0][0])
	}

	// PostgreSQL has the same, and each version but the last has a way up.
	for _, schema := range []string{sqlkeys.Schema(sqlkeys.PostgreSQL), sqlquota.Schema(sqlquota.PostgreSQL)} {
		for _, found := range regexp.MustCompile(`(?s)CREATE TABLE (\w+) \((.*?)\n\)`).FindAllStringSubmatch(schema, -1) {
			var all []string
			for _, column := range regexp.MustCompile(`(?m)^  ([a-z_]+) `).FindAllStringSubmatch(found[2], -1) {
				all = append(all, column[1])
			}
			assert.ElementsMatch(t, columns(found[1]), all, found[1])
		}
	}
	for _, column := range []string{"networks", "limits", "quotas", "former"} {
		assert.Contains(t, sqlkeys.SchemaFrom(sqlkeys.PostgreSQL, 1), column)
	}
	assert.Empty(t, sqlkeys.SchemaFrom(sqlkeys.PostgreSQL, 2))
	assert.Panics(t, func() { sqlkeys.SchemaFrom(sqlkeys.PostgreSQL, 3) })
}

// recorder is a LimitStore and a QuotaStore that notes what it is asked for.
type recorder struct {
	admit.QuotaStore
	key     string
	periods []string
}

func (s *recorder) Take(_ context.Context, key string, _ int, limits []admit.Limit) (admit.Decision, error) {
	s.key = key
	return admit.Decision{Allowed: true, States: make([]admit.LimitState, len(limits))}, nil
}

func (s *recorder) Settle(_ context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	for _, c := range claims {
		s.periods = append(s.periods, regexp.MustCompile(`^\d{4}-\d\d-\d\d/`).ReplaceAllString(c.Period, ""))
	}
	return nil, errors.New("no store")
}

func TestKeysOfALimitStore(t *testing.T) {
	t.Parallel()
	store := &recorder{}
	take := func(addr string, key *admit.Key, by func(*http.Request) string) string {
		limiter, err := admit.NewLimiter(admit.LimiterConfig{
			Name: "prices", Limits: []admit.Limit{admit.PerSecond(1)}, Store: store, CountBy: by,
		})
		require.NoError(t, err)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = addr
		if key != nil {
			r = r.WithContext(admit.WithKey(r.Context(), key))
		}
		_, err = limiter.Take(r, 1)
		require.NoError(t, err)
		return store.key
	}
	assert.Equal(t, [][]string{
		{take("192.0.2.1:1", &admit.Key{ID: "k-1"}, nil)},
		{take("192.0.2.1:1", nil, nil), take("[2001:db8::5]:1", nil, nil)},
		{strings.TrimSuffix(take("192.0.2.1:1", nil, func(*http.Request) string { return "tenant" }), "tenant")},
	}, seconds(table(t, "Keys of a limit store")))
}

func seconds(rows [][][]string) (cells [][]string) {
	for _, row := range rows {
		cells = append(cells, row[1])
	}
	return cells
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	store := &recorder{}
	plans, err := admit.NewPlans(admit.Plan{Name: "all", Quotas: []admit.Quota{
		{Requests: 1, Every: admit.Month}, {Requests: 1, Every: admit.Week}, {Requests: 1, Every: admit.Day},
	}})
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: store})
	require.NoError(t, err)
	_, err = quotas.Of(t.Context(), &admit.Key{ID: "k-1", Plan: "all"})
	require.Error(t, err)
	assert.Equal(t, []string{"P1M", "P1W", "P1D"}, store.periods)
	assert.Contains(t, guide.Text(t, "formats"), "`2026-01-31/P1M`, `P1W` or `P1D`")
}

func TestKeysInRedis(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	script := redis.NewScript(redislimit.Script)
	store, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Timeout: 10 * time.Second})
	require.NoError(t, err)
	key := func(limit admit.Limit) string {
		server.FlushAll()
		_, err := store.Take(t.Context(), "addr:prices:192.0.2.1", 1, []admit.Limit{limit})
		require.NoError(t, err)
		keys := server.Keys()
		require.Len(t, keys, 1)
		return keys[0]
	}
	plain := key(admit.PerSecond(10))
	guide.Shows(t, "formats", "text", plain)
	value, err := server.Get(plain)
	require.NoError(t, err)
	assert.Regexp(t, `^\d{16}$`, value)
	assert.Positive(t, server.TTL(plain))
	assert.Equal(t, plain+"+20", key(admit.Limit{Name: "second", Requests: 10, Per: time.Second, Burst: 20}))
	value, err = server.Get(key(admit.Limit{Name: "third", Requests: 3, Per: time.Second}))
	require.NoError(t, err)
	assert.Regexp(t, `^\d{16}:\d+$`, value)
}
