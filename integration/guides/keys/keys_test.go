package keys_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/guides/keys"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
	"github.com/admit-go/admit/sqlkeys"
)

// Without a database, the guide's service does not start.
func TestNoDatabase(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close()) // nobody listens there
	url := "postgres://api@" + listener.Addr().String() + "/keys?connect_timeout=5"
	err = keys.FromDatabase(t.Context(), url, func(http.Handler) error { return nil })
	assert.ErrorContains(t, err, "connect")
}

// soon is longer than a change of a store may take to hold.
const soon = 20 * time.Second

// order sends an order with headers, which are names and values in turn.
func order(t testing.TB, h http.Handler, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", nil)
	r.Header.Set("X-Request-Id", "7f3a")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func with(t testing.TB, h http.Handler, token string) string {
	t.Helper()
	return guide.Dump(t, order(t, h, "X-API-Key", token))
}

func eventually(t testing.TB, h http.Handler, token, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(with(t, h, token), want) }, soon, 20*time.Millisecond, want)
}

// serve returns the handler that a function serves, until the end of the test.
func serve(t testing.TB, run func(use func(http.Handler) error) error) http.Handler {
	t.Helper()
	handlers, stop, ended := make(chan http.Handler), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- run(func(h http.Handler) error {
			handlers <- h
			<-stop
			return nil
		})
	}()
	t.Cleanup(func() {
		close(stop)
		assert.NoError(t, <-ended)
	})
	select {
	case h := <-handlers:
		return h
	case err := <-ended:
		require.NoError(t, err)
		return nil
	}
}

// The commands of the guide for a key file, in their order, while a service has it open.
func TestCommandsOfAKeyFile(t *testing.T) {
	t.Parallel()
	shell := guide.NewShell(t)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(shell.Dir, name))
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(shell.Dir, name), []byte(text), 0o600))
	}
	write("old-keys.csv", guide.Blocks(t, "keys", "text")[0])
	var service http.Handler
	ran := 0
	for _, block := range guide.Blocks(t, "keys", "sh") {
		if !strings.Contains(block, "--keys keys.json") || strings.Contains(block, "kubectl") {
			continue
		}
		ran++
		stdout, stderr := shell.Run(t, block)
		switch command := strings.Fields(block)[2]; command {
		case "mint":
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, "the token is shown only once")
			service = serve(t, func(use func(http.Handler) error) error {
				return keys.FromFile(filepath.Join(shell.Dir, "keys.json"), use)
			})
			assert.Contains(t, with(t, service, read("token")), `{"result":"success","data":{"customer":"ACME"}}`)
			assert.NotContains(t, read("keys.json"), read("token"))
		case "rotate":
			eventually(t, service, read("token-2"), "ACME")
			assert.Contains(t, with(t, service, read("token")), "ACME")
		case "revoke":
			eventually(t, service, read("token"), "The API key has been revoked.")
			assert.Contains(t, with(t, service, read("token-2")), "ACME")
		case "update":
			eventually(t, service, read("token-2"), "address_not_allowed")
		case "import":
			assert.Equal(t, "1 imported, 0 already there, 0 in conflict\n", stderr)
			eventually(t, service, "8f14e45fceea167a5a36dedd4bea2543", "BETA")
		default:
			t.Errorf("%s is not tested", command)
		}
	}
	assert.Equal(t, 5, ran)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	past := time.Now().Add(-time.Hour)
	service, err := keys.Service(admit.KeyMap{
		admit.DigestOf("good"):    {ID: "1", Owner: "ACME", Scopes: []string{"orders:write"}},
		admit.DigestOf("reads"):   {ID: "2"},
		admit.DigestOf("expired"): {ID: "3", ExpiresAt: past},
		admit.DigestOf("revoked"): {ID: "4", RevokedAt: past},
	})
	require.NoError(t, err)
	guide.Shows(t, "keys", "http", guide.Dump(t, order(t, service)))
	assert.Equal(t, 201, order(t, service, "X-API-Key", "good").StatusCode)
	assert.Equal(t, 201, order(t, service, "Authorization", "Bearer good").StatusCode)
	for token, want := range map[string]string{
		"unknown": "The API key is not valid.",
		"expired": "The API key has expired.",
		"revoked": "The API key has been revoked.",
	} {
		got := with(t, service, token)
		assert.Contains(t, got, "401 Unauthorized")
		assert.Contains(t, got, `"code":"key_invalid"`)
		assert.Contains(t, got, want)
	}
	assert.Contains(t, with(t, service, "reads"), `"code":"scope_required"`)
	assert.Equal(t, 403, order(t, service, "X-API-Key", "reads").StatusCode)
	assert.Equal(t, 400, order(t, service, "X-API-Key", "good", "Authorization", "Bearer good").StatusCode)
}

// A secret in a directory, as the kubelet writes it: the files are links into ..data, which is
// replaced by a rename when the secret changes.
func TestSecretOfKubernetes(t *testing.T) {
	t.Parallel()
	var pod struct {
		Containers []struct {
			VolumeMounts []map[string]any `yaml:"volumeMounts"`
		}
		Volumes []struct {
			Secret struct {
				SecretName string `yaml:"secretName"`
			}
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(guide.Blocks(t, "keys", "yaml")[0]), &pod))
	assert.Equal(t, map[string]any{"name": "keys", "mountPath": "/etc/api", "readOnly": true}, pod.Containers[0].VolumeMounts[0])
	assert.Equal(t, "api-keys", pod.Volumes[0].Secret.SecretName)

	synctest.Test(t, func(t *testing.T) {
		mount := t.TempDir()
		update := func(version int, text []byte) {
			name := fmt.Sprintf("..2026_11_29_10_00_0%d.1234", version)
			dir := filepath.Join(mount, name)
			require.NoError(t, os.Mkdir(dir, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "keys.json"), text, 0o644))
			require.NoError(t, os.Symlink(name, filepath.Join(mount, "..data_tmp")))
			old, _ := os.Readlink(filepath.Join(mount, "..data"))
			require.NoError(t, os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")))
			if old != "" {
				require.NoError(t, os.RemoveAll(filepath.Join(mount, old)))
			}
		}
		text := func(token string) []byte {
			path := filepath.Join(t.TempDir(), "keys.json")
			require.NoError(t, admit.WriteKeyFile(path, admit.KeyMap{admit.DigestOf(token): {ID: token, Owner: token, Scopes: []string{"orders:write"}}}))
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			return text
		}
		update(1, text("one"))
		require.NoError(t, os.Symlink("..data/keys.json", filepath.Join(mount, "keys.json")))
		file, err := admit.OpenKeyFile(filepath.Join(mount, "keys.json"))
		require.NoError(t, err)
		defer file.Close()
		service, err := keys.Service(file)
		require.NoError(t, err)
		assert.Equal(t, 201, order(t, service, "X-API-Key", "one").StatusCode)

		update(2, text("two"))
		time.Sleep(2 * time.Second)
		assert.Equal(t, 201, order(t, service, "X-API-Key", "two").StatusCode)
		assert.Equal(t, 401, order(t, service, "X-API-Key", "one").StatusCode)

		update(3, []byte(`{"keys": [{"id": "three"}]}`))
		time.Sleep(3 * time.Second)
		assert.ErrorContains(t, file.Err(), "keys.json:1:11")
		assert.Equal(t, 201, order(t, service, "X-API-Key", "two").StatusCode)

		update(4, text("four"))
		time.Sleep(2 * time.Second)
		assert.NoError(t, file.Err())
		assert.Equal(t, 201, order(t, service, "X-API-Key", "four").StatusCode)
	})
}

// The commands of the guide for a database, and a service whose user may read, and write the
// last use alone.
func TestCommandsOfADatabase(t *testing.T) {
	t.Parallel()
	url := servers.PostgresDatabase(t)
	servers.Program(t, "psql")
	shell := guide.NewShell(t, "ADMIT_KEYS="+url)
	token, _ := shell.Run(t, "admit keys mint --keys keys.json --id acme-1 --owner ACME --scope orders:write")
	token = strings.TrimSpace(token)

	// A service that starts before the table exists gets along as soon as it does.
	admin := open(t, url)
	early := serve(t, func(use func(http.Handler) error) error { return keys.FromDatabase(t.Context(), url, use) })
	assert.Contains(t, with(t, early, token), "store_unavailable")
	for _, block := range guide.Blocks(t, "keys", "sh") {
		if !strings.Contains(block, "$ADMIT_KEYS") {
			continue
		}
		stdout, _ := shell.Run(t, block)
		assert.Regexp(t, `(?m)^acme-1 +ACME `, stdout)
		assert.Regexp(t, `(?m)^gamma-1 +GAMMA `, stdout)
	}
	eventually(t, early, token, "ACME")
	api := guide.Grant(t, admin, url, guide.Blocks(t, "keys", "sql")[0])

	manager, err := sqlkeys.New(sqlkeys.Config{DB: admin, Dialect: sqlkeys.PostgreSQL})
	require.NoError(t, err)
	defer manager.Close()
	t.Run("a service", func(t *testing.T) {
		service := serve(t, func(use func(http.Handler) error) error { return keys.FromDatabase(t.Context(), api, use) })
		assert.Contains(t, with(t, service, token), "ACME")
		sold, err := keys.Sell(t.Context(), manager, "beta")
		require.NoError(t, err)
		assert.Contains(t, with(t, service, sold), `{"customer":"beta"}`)
		shell.Run(t, "admit keys revoke acme-1")
		eventually(t, service, token, "The API key has been revoked.")

		record, err := manager.Get(t.Context(), "customer-beta")
		require.NoError(t, err)
		assert.Equal(t, sold[:9]+"...", record.Meta["hint"])
		_, err = keys.Sell(t.Context(), manager, "beta")
		assert.ErrorIs(t, err, sqlkeys.ErrExists)
	})
	record, err := manager.Get(t.Context(), "acme-1")
	require.NoError(t, err)
	assert.False(t, record.LastUsedAt.IsZero()) // written when the service has ended
}

func open(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// countingStore has one key, and counts how often it is asked.
type countingStore struct{ asked int }

func (s *countingStore) LookupKey(_ context.Context, d admit.Digest) (*admit.Key, error) {
	s.asked++
	if d == admit.DigestOf("good") {
		return &admit.Key{ID: "1"}, nil
	}
	return nil, admit.ErrKeyNotFound
}

func TestFloodOfUnknownKeys(t *testing.T) {
	t.Parallel()
	store := &countingStore{}
	cache, err := admit.NewKeyCache(store, admit.KeyCacheConfig{TTL: time.Minute})
	require.NoError(t, err)
	auth, err := keys.Strict(cache)
	require.NoError(t, err)
	service := auth.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	assert.Equal(t, 200, order(t, service, "X-API-Key", "good").StatusCode)
	for i := range 30 {
		require.Equal(t, 401, order(t, service, "X-API-Key", fmt.Sprint("unknown ", i)).StatusCode)
	}
	assert.Equal(t, 31, store.asked)
	got := with(t, service, "one more")
	assert.Contains(t, got, "429 Too Many Requests")
	assert.Contains(t, got, `"code":"key_throttled"`)
	assert.Equal(t, 200, order(t, service, "X-API-Key", "good").StatusCode)

	token, _, _ := admit.Mint("acme")
	mistyped := token[:10] + "-" + token[11:]
	assert.Equal(t, 401, order(t, service, "X-API-Key", mistyped).StatusCode)
	assert.Equal(t, 31, store.asked)
}

func TestOtherPlaces(t *testing.T) {
	t.Parallel()
	auth, err := keys.Anywhere(admit.KeyMap{admit.DigestOf("good"): {ID: "1"}})
	require.NoError(t, err)
	service := auth.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Empty(t, r.Header.Get("Authorization")+r.Header.Get("X-API-Key")+r.Header.Get("Cookie")+r.URL.RawQuery)
	}))
	for _, header := range [][]string{
		{"Authorization", "Bearer good"}, {"X-API-Key", "good"}, {"Cookie", "__Host-session=good"},
	} {
		assert.Equal(t, 200, order(t, service, header...).StatusCode, header)
	}
	w := httptest.NewRecorder()
	service.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?key=good", nil))
	assert.Equal(t, 200, w.Code)
}

// What the guide says of the log is what is there.
func TestLogOfAFileThatCannotBeRead(t *testing.T) {
	var log testkit.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.json")
		require.NoError(t, os.WriteFile(path, []byte(`{"keys": []}`), 0o600))
		file, err := admit.OpenKeyFile(path)
		require.NoError(t, err)
		defer file.Close()
		require.NoError(t, os.WriteFile(path, []byte(`{"keys": [`), 0o600))
		time.Sleep(3 * time.Second)
		assert.Contains(t, log.String(), "the key file cannot be used")
		assert.Contains(t, guide.Text(t, "keys"), "`the key file cannot be used`")
	})
}
