package page

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
	"github.com/admit-go/admit/example/service"
	"github.com/admit-go/admit/integration/servers"
)

// lines are the curl lines of a contract.
type lines struct {
	Statuses []struct {
		Status int
		Codes  []struct {
			Code, Curl string
		}
	}
	Routes []struct{ Route, Curl string }
}

func linesOf(t *testing.T, api *contract.API) lines {
	t.Helper()
	r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
	r.Header.Set("Accept", "application/json")
	api.Page().ServeHTTP(w, r)
	var page struct{ Data lines }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &page))
	return page.Data
}

// What the page says that a line of curl is answered, it is.
func TestCurlLinesAreTrue(t *testing.T) {
	t.Parallel()
	servers.Program(t, "curl")
	token, digest, _ := admit.Mint("demo_trader")
	keys := admit.KeyMap{digest: {ID: "k", Plan: "pro", Scopes: []string{"orders:write"}}}
	api, err := service.New(t.Context(), service.Config{Keys: keys, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	server := httptest.NewServer(api)
	defer server.Close()
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "body"), []byte(`{"pair":"btc-usd","side":"buy","quantity":"1","client_id":"c"}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, ".curlrc"), []byte("silent\nmax-time = 2\n"), 0o600)) // one of the routes never ends

	run := func(line string) (status, code string) {
		t.Helper()
		sh := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(line, "http://localhost:8080", server.URL))
		sh.Dir = folder
		sh.Env = append(os.Environ(), "CURL_HOME="+folder, "KEY="+token)
		out, _ := sh.Output() // not an error: curl fails where its time is over
		m := regexp.MustCompile(`^HTTP/1\.1 (\d+)[\s\S]*?(?:"code":"(\w+)"|$)`).FindStringSubmatch(string(out))
		require.NotNil(t, m, "%s: %s", line, out)
		return m[1], m[2]
	}
	provoked := map[string]bool{}
	for _, s := range linesOf(t, api.Contract).Statuses {
		for _, c := range s.Codes {
			if c.Curl != "" {
				status, code := run(c.Curl)
				assert.Equal(t, strconv.Itoa(s.Status), status, c.Curl)
				assert.Equal(t, c.Code, code, c.Curl)
				provoked[c.Code] = true
			}
		}
	}
	for _, code := range []string{"key_missing", "key_invalid", "not_found", "method_not_allowed", "not_implemented", "not_acceptable", "unsupported_media_type"} {
		assert.True(t, provoked[code], code)
	}
	for _, r := range linesOf(t, api.Contract).Routes {
		status, code := run(r.Curl)
		assert.NotContains(t, []string{"401", "402", "403", "405", "406", "413", "415", "501"}, status, "%s: %s", r.Curl, code)
	}
}

// A path is one request, to the route that has it, whatever is in its pattern.
func TestCurlLinesOfHostilePaths(t *testing.T) {
	t.Parallel()
	servers.Program(t, "curl")
	for pattern, want := range map[string]string{
		"GET /[1-3]/{id}":                   "/[1-3]/ID",
		"GET /a%20b/'$(touch BAD)`x`":       "/a b/'$(touch BAD)`x`",
		"GET /50%25/é/{$}":                  "/50%/é/",
		"GET /a#b/c?d/\"e\"\\|;&/{rest...}": "/a#b/c?d/\"e\"\\|;&/REST",
	} {
		mux, heard := http.NewServeMux(), []string(nil)
		mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) { heard = append(heard, r.URL.Path) })
		server := httptest.NewServer(mux)
		api, err := contract.New(contract.Info{Title: "T", Version: "1", Servers: []string{server.URL}}, admit.Policy{})
		require.NoError(t, err)
		api.Declare(pattern, admit.Policy{})
		line := linesOf(t, api).Routes[0].Curl
		sh := exec.CommandContext(t.Context(), "sh", "-c", line)
		sh.Dir = t.TempDir()
		out, err := sh.CombinedOutput()
		assert.NoError(t, err, "%s: %s", line, out)
		server.Close()
		assert.Equal(t, []string{want}, heard, line)
		left, err := os.ReadDir(sh.Dir)
		require.NoError(t, err)
		assert.Empty(t, left)
	}
}

// A description is for people, and no part of a request.
func TestCurlLinesOfSchemes(t *testing.T) {
	t.Parallel()
	const evil = `'"$(touch BAD)` + "`touch BAD`" + `;touch BAD&\`
	for _, test := range []struct {
		scheme contract.SecurityScheme
		want   []string
	}{
		{contract.SecurityScheme{Type: "apiKey", In: "header", Name: evil}, []string{"-H", evil + ": secret"}},
		{contract.SecurityScheme{Type: "apiKey", In: "cookie", Name: evil}, []string{"-b", evil + "=secret"}},
		{contract.SecurityScheme{Type: "apiKey", In: "header", Name: "Authorization", Description: "A token of ours: ask for one"}, []string{"-H", "Authorization: secret"}},
		{contract.SecurityScheme{Type: "http", Scheme: evil}, []string{"-H", "Authorization: " + evil + " secret"}},
		{contract.SecurityScheme{Type: "http", Scheme: "bearer", Description: evil}, []string{"-H", "Authorization: Bearer secret"}},
		{contract.SecurityScheme{Type: "oauth2", Flows: map[string]any{}}, []string{"-H", "Authorization: Bearer secret"}},
		{contract.SecurityScheme{Type: "mutualTLS"}, []string{"--cert", "certificate", "--key", "secret"}},
	} {
		api, err := contract.New(contract.Info{
			Title: "T", Version: "1", SecuritySchemes: map[string]contract.SecurityScheme{"s": test.scheme},
		}, admit.Policy{})
		require.NoError(t, err)
		api.Declare("GET /x", admit.Policy{Identity: func(h http.Handler) http.Handler { return h }})
		line := linesOf(t, api).Routes[0].Curl
		sh := exec.CommandContext(t.Context(), "sh", "-c", `set -u; curl() { for word; do printf '%s\n' "$word"; done; }; `+line)
		sh.Dir = t.TempDir()
		sh.Env = append(os.Environ(), "KEY=secret", "CERT=certificate")
		out, err := sh.CombinedOutput()
		require.NoError(t, err, "%s: %s", line, out)
		assert.Equal(t, slices.Concat([]string{"-i"}, test.want, []string{"http://localhost:8080/x"}), strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"))
		left, err := os.ReadDir(sh.Dir)
		require.NoError(t, err)
		assert.Empty(t, left)
	}
}
