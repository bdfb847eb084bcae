package uploads

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/internal/testkit"
)

func serve(t *testing.T, bounds admit.BodyTimeout) (s *httptest.Server, folder string) {
	folder = t.TempDir()
	root, err := os.OpenRoot(folder)
	require.NoError(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return testkit.Serve(t, testkit.HTTP1, (&files{root}).handler(bounds)), folder
}

func TestPage(t *testing.T) {
	t.Parallel()
	s, folder := serve(t, slow)
	dir := t.TempDir()
	big := bytes.Repeat([]byte("0123456789abcdef"), 11<<16)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "archive.tar"), big, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "q3.csv"), []byte("a,b\n"), 0o600))
	guide.Run(t, "uploads", s.URL, dir)

	stored, err := os.ReadFile(filepath.Join(folder, "archive.tar"))
	require.NoError(t, err)
	assert.True(t, bytes.Equal(big, stored))
	parts, err := filepath.Glob(filepath.Join(folder, "archive.part.*"))
	require.NoError(t, err)
	var whole []byte
	for _, part := range parts {
		text, err := os.ReadFile(part)
		require.NoError(t, err)
		whole = append(whole, text...)
	}
	assert.Len(t, parts, 3)
	assert.True(t, bytes.Equal(big, whole))
	hidden, err := filepath.Glob(filepath.Join(folder, ".*"))
	require.NoError(t, err)
	assert.Empty(t, hidden)
}

const multipartForm = "Content-Type: multipart/form-data; boundary=b"

// Each fault of a client has a status below 500, in each way to read a form.
func TestFaults(t *testing.T) {
	t.Parallel()
	part := func(name, text string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"report\"; filename=\"" + name + "\"\r\n\r\n" + text
	}
	for name, test := range map[string]struct {
		path, body, header string
		status             int
	}{
		"streamed":                {"/files", part("q3.csv", "a") + "\r\n--b--\r\n", multipartForm, 201},
		"streamed, cut":           {"/files", part("q3.csv", "a"), multipartForm, 400},
		"streamed, no form":       {"/files", "nonsense", multipartForm, 400},
		"streamed, bad header":    {"/files", "--b\r\nContent\r\n\r\na", multipartForm, 400},
		"streamed, wrong name":    {"/files", part("..", "a") + "\r\n--b--\r\n", multipartForm, 400},
		"streamed, no boundary":   {"/files", "a", "Content-Type: multipart/form-data", 400},
		"streamed, another type":  {"/files", "a", "Content-Type: text/csv", 415},
		"parsed":                  {"/reports", part("q3.csv", "a") + "\r\n--b\r\nContent-Disposition: form-data; name=\"quarter\"\r\n\r\n2026-q3\r\n--b--\r\n", multipartForm, 201},
		"parsed, 10 MiB":          {"/reports", part("q3.csv", strings.Repeat("a", maxFile)) + "\r\n--b\r\nContent-Disposition: form-data; name=\"quarter\"\r\n\r\n2026-q3\r\n--b--\r\n", multipartForm, 201},
		"parsed, a larger file":   {"/reports", part("q3.csv", strings.Repeat("a", maxFile+1)) + "\r\n--b\r\nContent-Disposition: form-data; name=\"quarter\"\r\n\r\n2026-q3\r\n--b--\r\n", multipartForm, 413},
		"parsed, cut":             {"/reports", part("q3.csv", "a"), multipartForm, 400},
		"parsed, no file":         {"/reports", "--b\r\nContent-Disposition: form-data; name=\"quarter\"\r\n\r\n2026-q3\r\n--b--\r\n", multipartForm, 400},
		"parsed, another type":    {"/reports", "a", "Content-Type: text/csv", 415},
		"JSON of another type":    {"/orders", "a", "Content-Type: text/csv", 415},
		"JSON that is too large":  {"/orders", `{"article":"` + strings.Repeat("x", 64<<10) + `"}`, "Content-Type: application/json", 413},
		"JSON that is not chunks": {"/orders", `{`, "Content-Type: application/json", 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, folder := serve(t, slow)
			key, value, _ := strings.Cut(test.header, ": ")
			res, body := testkit.Do(t, s, "POST", test.path, test.body, key, value)
			assert.Equal(t, test.status, res.StatusCode, "%s", body)
			left, err := os.ReadDir(folder)
			require.NoError(t, err)
			assert.Equal(t, test.status == 201, len(left) == 1)
		})
	}
}

// A body that is too large, or that does not come, is found while it is read too.
func TestWhileItIsRead(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	root, err := os.OpenRoot(folder)
	require.NoError(t, err)
	defer root.Close()
	f := &files{root}
	mux := http.NewServeMux()
	mux.Handle("PUT /files/{name}", admit.HandlerFunc(f.put))
	mux.Handle("POST /files", admit.HandlerFunc(f.stream))
	s := testkit.Serve(t, testkit.HTTP1, admit.Policy{
		MaxBody: 1 << 10, BodyTimeout: admit.BodyTimeout{Grace: 50 * time.Millisecond}, Timeout: time.Minute,
	}.Wrap(admit.Mux(mux)))

	const form = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"q3.csv\"\r\n\r\n"
	for name, test := range map[string]struct {
		request, body string
		status        int
	}{
		"too large":           {"PUT /files/a", strings.Repeat("x", 2<<10), 413},
		"too late":            {"PUT /files/a", "x", 408},
		"too large in a form": {"POST /files", form + strings.Repeat("x", 2<<10), 413},
		"too late in a form":  {"POST /files", form + "x", 408},
		"too late for a form": {"POST /files", form[:20], 408},
	} {
		c := testkit.Dial(t, s)
		_, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: h\r\n%s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", test.request, multipartForm, len(test.body), test.body)
		require.NoError(t, err)
		res, body := testkit.Answer(t, bufio.NewReader(c))
		assert.Equal(t, test.status, res.StatusCode, "%s: %s", name, body)
		assert.True(t, res.Close, name)
	}
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// What ParseForm has put into temporary files is removed when the request ends.
func TestTemporaryFiles(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	seen := 0
	h := admit.Policy{}.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if err := admit.ParseForm(r, 1<<10); err != nil {
			return err
		}
		entries, err := os.ReadDir(temporary)
		seen = len(entries)
		return err
	}))
	body := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n" + strings.Repeat("x", 512<<10) + "\r\n--b--\r\n"
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, 1, seen)
	entries, err := os.ReadDir(temporary)
	require.NoError(t, err)
	assert.Empty(t, entries)
}
