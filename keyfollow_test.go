package admit_test

import (
	"bytes"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// keyFileOf is the text of a key file with one key for each token.
func keyFileOf(tokens ...string) []byte {
	var b bytes.Buffer
	b.WriteString("{\"keys\": [\n")
	for i, token := range tokens {
		if i > 0 {
			b.WriteString(",\n")
		}
		b.WriteString(`{"id": "` + token + `", "digest": "` + admit.DigestOf(token).String() + `"}`)
	}
	b.WriteString("\n]}")
	return b.Bytes()
}

func knows(t testing.TB, s admit.KeyStore, token string) bool {
	t.Helper()
	_, err := s.LookupKey(t.Context(), admit.DigestOf(token))
	if err != nil {
		require.ErrorIs(t, err, admit.ErrKeyNotFound)
	}
	return err == nil
}

// A change by any of the ways in which files change counts within two seconds. Time is
// that of the bubble, so that all of these writes happen within one tick of the file
// system's clock: what cannot be told from time and size is seen all the same.
func TestKeyFileFollows(t *testing.T) {
	t.Parallel()
	rename := func(t *testing.T, path string, text []byte) {
		require.NoError(t, os.WriteFile(path+".new", text, 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	inPlace := func(t *testing.T, path string, text []byte) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
	}
	for name, test := range map[string]struct {
		write func(t *testing.T, path string, text []byte)
		next  []string
	}{
		"replaced":                    {rename, []string{"new", "more"}},
		"replaced, same size":         {rename, []string{"new"}},
		"written in place":            {inPlace, []string{"new", "more"}},
		"written in place, same size": {inPlace, []string{"new"}},
		"no key left":                 {inPlace, nil},
		"same size and the same times": {func(t *testing.T, path string, text []byte) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			inPlace(t, path, text)
			require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, []string{"new"}},
		"removed, and there again": {func(t *testing.T, path string, text []byte) {
			require.NoError(t, os.Remove(path))
			time.Sleep(10 * time.Second)
			inPlace(t, path, text)
		}, []string{"new"}},
		"written in two parts": {func(t *testing.T, path string, text []byte) {
			inPlace(t, path, text[:len(text)/2])
			time.Sleep(1500 * time.Millisecond)
			file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = file.Write(text[len(text)/2:])
			require.NoError(t, err)
			require.NoError(t, file.Close())
		}, []string{"new", "more"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "keys.json")
				inPlace(t, path, keyFileOf("old"))
				f, err := admit.OpenKeyFile(path)
				require.NoError(t, err)
				defer f.Close()
				time.Sleep(1500 * time.Millisecond)
				require.True(t, knows(t, f, "old"))

				test.write(t, path, keyFileOf(test.next...))
				time.Sleep(2 * time.Second)
				assert.False(t, knows(t, f, "old"))
				for _, token := range test.next {
					assert.True(t, knows(t, f, token), token)
				}
				assert.NoError(t, f.Err())
			})
		})
	}
}

// Who is sold more has it two seconds after the file says so, in mid-period: behind a cache
// after its TTL.
func TestKeyFileFollowsQuotas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.json")
		key := &admit.Key{ID: "k1", Plan: "free"}
		sell := func(quotas ...admit.Quota) {
			key.Quotas = quotas
			require.NoError(t, admit.WriteKeyFile(path, admit.KeyMap{admit.DigestOf("token"): key}))
			time.Sleep(3 * time.Second)
		}
		sell()
		file, err := admit.OpenKeyFile(path)
		require.NoError(t, err)
		defer file.Close()
		cache, err := admit.NewKeyCache(file, admit.KeyCacheConfig{TTL: time.Second})
		require.NoError(t, err)
		plans := mustPlans(t, admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 2, Every: admit.Month}}})
		quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
		require.NoError(t, err)
		service := newAuth(t, admit.AuthConfig{Store: cache}).Wrap(quotas.Wrap(ok))
		for _, sold := range []struct {
			quotas []admit.Quota
			more   int
		}{
			{nil, 2}, // those of the plan
			{[]admit.Quota{{Requests: 5, Every: admit.Month}}, 3},
			{[]admit.Quota{{Name: "month", Requests: 5, Every: admit.Month, Soft: true}}, 10},
			{[]admit.Quota{{Requests: 20, Every: admit.Month}, {Requests: 2, Every: admit.Day}}, 2},
			{nil, 0},
		} {
			sell(sold.quotas...)
			admitted := 0
			for range 10 {
				answer := httptest.NewRecorder()
				service.ServeHTTP(answer, get("/", "X-API-Key", "token"))
				if answer.Code == http.StatusOK {
					admitted++
				}
			}
			assert.Equal(t, sold.more, admitted, "%v", sold.quotas)
		}
	})
}

// What Kubernetes does with a ConfigMap or a Secret: the file is a link through a
// folder that is a link, and that one is swapped.
func TestKeyFileFollowsLinks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		publish := func(version string, text []byte) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, version, "keys.json"), text, 0o600))
			require.NoError(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
			require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		}
		publish("..1", keyFileOf("one"))
		path := filepath.Join(dir, "keys.json")
		require.NoError(t, os.Symlink("..data/keys.json", path))
		f, err := admit.OpenKeyFile(path)
		require.NoError(t, err)
		defer f.Close()

		for _, v := range []string{"two", "thr"} {
			time.Sleep(10 * time.Second)
			publish(".."+v, keyFileOf(v))
			time.Sleep(time.Second + 1)
			assert.True(t, knows(t, f, v))
			assert.False(t, knows(t, f, "one"))
		}
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "..one")))
		time.Sleep(10 * time.Second)
		assert.True(t, knows(t, f, "thr"))
		assert.NoError(t, f.Err())
	})
}

// A version that cannot be taken keeps the last good one, and is reported once. It is
// not parallel because the logger is the process's.
func TestKeyFileKeepsTheLastGood(t *testing.T) {
	logger, out := logged()
	defer func(l *slog.Logger, w io.Writer, flags int) {
		slog.SetDefault(l)
		log.SetOutput(w)
		log.SetFlags(flags)
	}(slog.Default(), log.Writer(), log.Flags())
	slog.SetDefault(logger)

	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.json")
		require.NoError(t, admit.WriteKeyFile(path, admit.KeyMap{admit.DigestOf("old"): {ID: "old"}}))
		f, err := admit.OpenKeyFile(path)
		require.NoError(t, err)
		defer f.Close()
		reports := func() int { return strings.Count(out.String(), "cannot be used") }

		good := keyFileOf("good")
		require.NoError(t, os.WriteFile(path, append(good, '}'), 0o600))
		time.Sleep(time.Second + 1)
		assert.NoError(t, f.Err(), "seen once: it may be half a write")
		time.Sleep(time.Minute)
		assert.True(t, knows(t, f, "old"))
		require.ErrorContains(t, f.Err(), path+":3:3: not well-formed JSON: there is more")
		assert.Equal(t, 1, reports(), "%s", out)
		assert.Contains(t, out.String(), path+":3:3: not well-formed JSON: there is more")
		assert.Contains(t, out.String(), "level=ERROR")

		require.NoError(t, os.WriteFile(path, keyFileOf("twice", "twice"), 0o600))
		time.Sleep(time.Minute)
		assert.True(t, knows(t, f, "old"))
		require.ErrorContains(t, f.Err(), path+":3:1: the id \"twice\" is there twice")
		assert.Equal(t, 2, reports(), "%s", out)

		require.NoError(t, os.Remove(path))
		time.Sleep(time.Minute)
		assert.True(t, knows(t, f, "old"))
		require.ErrorIs(t, f.Err(), os.ErrNotExist)
		assert.Equal(t, 3, reports(), "%s", out)

		require.NoError(t, os.WriteFile(path, good, 0o600))
		time.Sleep(time.Second + 1)
		assert.NoError(t, f.Err())
		assert.True(t, knows(t, f, "good"))
		assert.False(t, knows(t, f, "old"))
		assert.Equal(t, 1, strings.Count(out.String(), "has changed"), "%s", out)
		assert.Equal(t, 3, reports(), "%s", out)
	})
}

// Close ends the goroutine (the bubble would not end otherwise), and keeps the keys.
func TestKeyFileClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := writeFile(t, string(keyFileOf("old")))
		f, err := admit.OpenKeyFile(path)
		require.NoError(t, err)
		assert.NoError(t, f.Close())
		assert.NoError(t, f.Close())
		require.NoError(t, os.WriteFile(path, keyFileOf("new"), 0o600))
		time.Sleep(time.Minute)
		assert.True(t, knows(t, f, "old"))
		assert.False(t, knows(t, f, "new"))
	})
}

// Writers and readers at once, on real time: no reader ever sees a key missing that
// every version has, however the file is written.
func TestKeyFileUnderWrites(t *testing.T) {
	t.Parallel()
	path := writeFile(t, string(keyFileOf("always")))
	f, err := admit.OpenKeyFile(path)
	require.NoError(t, err)
	defer f.Close()
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if text := keyFileOf("always", strconv.Itoa(i)); i%2 == 0 {
				assert.NoError(t, os.WriteFile(path, text, 0o600))
			} else {
				assert.NoError(t, admit.WriteKeyFile(path, admit.KeyMap{admit.DigestOf("always"): {ID: "always"}}))
			}
			time.Sleep(time.Millisecond)
		}
	})
	for begin := time.Now(); time.Since(begin) < 2500*time.Millisecond; {
		require.True(t, knows(t, f, "always"))
		time.Sleep(time.Millisecond)
	}
	close(stop)
	writer.Wait()
	require.NoError(t, os.WriteFile(path, keyFileOf("always", "last"), 0o600))
	require.Eventually(t, func() bool { return knows(t, f, "last") }, 10*time.Second, 10*time.Millisecond)
}
