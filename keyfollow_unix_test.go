//go:build unix

package admit_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// A pipe in the place of the file is not opened, which might hang for good: it is
// reported, Close returns, and the file that replaces it is followed.
func TestKeyFileBecomesAPipe(t *testing.T) {
	t.Parallel()
	for _, through := range []string{"file", "link"} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			path, real := filepath.Join(dir, "keys.json"), filepath.Join(dir, "real")
			if through == "file" {
				real = path
			} else {
				require.NoError(t, os.Symlink("real", path))
			}
			require.NoError(t, os.WriteFile(real, keyFileOf("old"), 0o600))
			f, err := admit.OpenKeyFile(path)
			require.NoError(t, err)
			defer f.Close()

			require.NoError(t, os.Remove(real))
			require.NoError(t, syscall.Mkfifo(real, 0o600))
			time.Sleep(3 * time.Second)
			require.ErrorContains(t, f.Err(), "not a regular file")
			assert.True(t, knows(t, f, "old"))

			require.NoError(t, os.Remove(real))
			require.NoError(t, os.WriteFile(real, keyFileOf("new"), 0o600))
			time.Sleep(2 * time.Second)
			assert.NoError(t, f.Err())
			assert.True(t, knows(t, f, "new"))

			require.NoError(t, os.Remove(real))
			require.NoError(t, syscall.Mkfifo(real, 0o600))
			time.Sleep(time.Minute)
			began := time.Now()
			require.NoError(t, f.Close())
			assert.Less(t, time.Since(began), time.Second)
		})
	}
}
