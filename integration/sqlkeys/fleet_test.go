package sqlkeys_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
	"github.com/admit-go/admit/sqlkeys"
)

// TestMain is the main of a service too, for tests with processes of their own.
func TestMain(m *testing.M) {
	if url := os.Getenv("ADMIT_TEST_SERVICE"); url != "" {
		if err := serve(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve is a service as its users write one: keys in PostgreSQL, a cache in front. It
// prints its URL, and ends when it is interrupted.
func serve(url string) error {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: sqlkeys.PostgreSQL})
	if err != nil {
		return err
	}
	defer store.Close()
	cache, err := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Hour, StaleFor: time.Hour})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	go store.Watch(ctx, cache.Forget)
	service := httptest.NewServer(admit.APIKey(cache)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k, _ := admit.KeyFrom(r.Context())
		_, _ = fmt.Fprint(w, k.ID)
	})))
	defer service.Close()
	fmt.Println(service.URL)
	<-ctx.Done()
	return nil
}

// startService starts a process, and returns its URL.
func startService(t *testing.T, database string) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	c := exec.Command(self)
	c.Env = append(os.Environ(), "ADMIT_TEST_SERVICE="+database)
	c.Stderr = os.Stderr
	return testkit.StartProgram(t, c)
}

// command builds the command, and returns what runs it for the keys of a database.
func command(t *testing.T, database string) func(args ...string) (stdout string) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "admit")
	out, err := exec.Command("go", "build", "-C", "../../cmd/admit", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), bin, append([]string{"keys"}, args...)...)
		c.Env = append(os.Environ(), "ADMIT_KEYS="+database)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		require.NoError(t, err, "%s", &stderr)
		return strings.TrimSpace(string(out))
	}
}

// What is meant as now, and counts from now, does so by the clock of the database, which all
// share: that of the machine where somebody revokes a key may be minutes off.
func TestClockOfTheDatabase(t *testing.T) {
	t.Parallel()
	url := servers.PostgresDatabase(t)
	openDatabase(t, sqlkeys.PostgreSQL, "pgx", url).exec(t, `CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog.now() + interval '100 days' $$`)
	url += "&search_path=public,pg_catalog" // now is that function
	db := connect(t, sqlkeys.PostgreSQL, "pgx", url)
	s := db.store(t)
	is := func(want, got time.Time) {
		t.Helper()
		assert.WithinDuration(t, want, got, time.Minute)
	}
	now := time.Now().AddDate(0, 0, 100)

	insert(t, s, "a", admit.Key{})
	insert(t, s, "b", admit.Key{})
	insert(t, s, "expired", admit.Key{ExpiresAt: time.Now().AddDate(0, 0, 1)})
	r, err := s.Revoke(t.Context(), "a", time.Time{})
	require.NoError(t, err)
	is(now, r.RevokedAt)
	require.NoError(t, s.Rotate(t.Context(), "b", time.Time{}, admit.DigestOf("c"), &admit.Key{ID: "c"}))
	r, err = s.Get(t.Context(), "b")
	require.NoError(t, err)
	is(now, r.ExpiresAt)
	assert.ErrorIs(t, s.Rotate(t.Context(), "expired", time.Time{}, admit.DigestOf("x"), &admit.Key{ID: "x"}), sqlkeys.ErrNotValid)

	admitKeys := command(t, url)
	of := func(id string) *admit.Key {
		t.Helper()
		r, err := s.Get(t.Context(), id)
		require.NoError(t, err)
		return &r.Key
	}
	admitKeys("mint", "--id", "d", "--not-before", "1h", "--expires", "10d")
	is(now.Add(time.Hour), of("d").NotBefore)
	is(now.AddDate(0, 0, 10), of("d").ExpiresAt)
	admitKeys("update", "d", "--not-before", "2h", "--expires", "20d")
	is(now.Add(2*time.Hour), of("d").NotBefore)
	is(now.AddDate(0, 0, 20), of("d").ExpiresAt)
	admitKeys("mint", "--id", "e")
	admitKeys("rotate", "e", "--id", "f", "--overlap", "3h", "--expires", "30d")
	is(now.Add(3*time.Hour), of("e").ExpiresAt)
	is(now.AddDate(0, 0, 30), of("f").ExpiresAt)
	admitKeys("revoke", "d")
	is(now, of("d").RevokedAt)
	admitKeys("revoke", "f", "--at", "4h")
	is(now.Add(4*time.Hour), of("f").RevokedAt)
}

// Two services with caches, and the command: mint, rotate, revoke, and how long it
// takes from the command's end to the last refusal.
func TestFleet(t *testing.T) {
	t.Parallel()
	database := servers.PostgresDatabase(t)
	db := openDatabase(t, sqlkeys.PostgreSQL, "pgx", database)
	admitKeys := command(t, database)
	services := []string{startService(t, database), startService(t, database)}
	first := admitKeys("mint", "--id", "acme-1", "--owner", "ACME")
	for _, url := range services {
		require.Eventually(t, func() bool { return testkit.Status(t, url, first) == 200 }, soon, 10*time.Millisecond)
	}
	second := admitKeys("rotate", "acme-1", "--id", "acme-2", "--overlap", "1h")
	for _, url := range services {
		require.Equal(t, 200, testkit.Status(t, url, first))
		require.Equal(t, 200, testkit.Status(t, url, second))
	}
	admitKeys("revoke", "acme-1")
	for _, url := range services {
		require.Eventually(t, func() bool { return testkit.Status(t, url, first) == 401 }, soon, 10*time.Millisecond)
		require.Equal(t, 200, testkit.Status(t, url, second))
	}

	tries := 3
	if n, err := strconv.Atoi(os.Getenv("ADMIT_TRIES")); err == nil {
		tries = n
	}
	store := db.store(t)
	var took []time.Duration
	for i := range tries {
		token := fmt.Sprintf("try %d", i)
		insert(t, store, token, admit.Key{})
		for _, url := range services {
			require.Eventually(t, func() bool { return testkit.Status(t, url, token) == 200 }, soon, 5*time.Millisecond)
		}
		time.Sleep(time.Duration(i%10) * 107 * time.Millisecond) // any moment between two queries of Watch
		_, err := store.Revoke(t.Context(), token, time.Time{})
		require.NoError(t, err)
		revoked := time.Now()
		for _, url := range services {
			for testkit.Status(t, url, token) != 401 {
				require.Less(t, time.Since(revoked), soon)
				time.Sleep(time.Millisecond)
			}
		}
		took = append(took, time.Since(revoked))
	}
	slices.Sort(took)
	t.Logf("from revocation to refusal by both services, %d tries: fastest %v, median %v, slowest %v", tries,
		took[0].Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}
