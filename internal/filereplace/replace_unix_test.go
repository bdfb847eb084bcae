//go:build unix

package filereplace_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/filereplace"
)

func TestWithKeepsTheMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	for _, mode := range []os.FileMode{0o640, 0o600, 0o444} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Chmod(path, mode))
		require.NoError(t, filereplace.With(path, []byte("x")))
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode())
		require.NoError(t, os.Chmod(path, 0o600))
	}
}

const nobody, nogroup = 65534, 65534

// Root changes the keys of a service that runs as somebody else, who must still read them.
func TestWithKeepsTheOwner(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give files away; CI is root")
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(path, nil, 0o640))
	require.NoError(t, os.Chown(path, nobody, nogroup))
	require.NoError(t, filereplace.With(path, []byte("x")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	assert.Equal(t, []uint32{nobody, nogroup}, []uint32{owner.Uid, owner.Gid})
	assert.Equal(t, os.FileMode(0o640), info.Mode())
}

// Who cannot keep the owner replaces nothing. The test runs itself as nobody.
func TestWithLeavesAFileOfOthers(t *testing.T) {
	if path := os.Getenv("FILEREPLACE_PATH"); path != "" {
		require.ErrorContains(t, filereplace.With(path, []byte("new")), "the owner, group and mode of "+path+" cannot be kept")
		return
	}
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can be another user; CI is root")
	}
	dir, err := os.MkdirTemp("", "filereplace")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o777))
	path, program := filepath.Join(dir, "keys.json"), filepath.Join(dir, "test")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
	self, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, self, 0o755))
	c := exec.CommandContext(t.Context(), program, "-test.run", "^TestWithLeavesAFileOfOthers$")
	c.Dir = dir
	c.Env = []string{"FILEREPLACE_PATH=" + path}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nogroup}}
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Remove(program))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "old", string(text))
	alone(t, path)
}

func TestRenameWaitsForAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := os.ErrDeadlineExceeded
		for _, test := range []struct {
			freeAfter time.Duration
			err       error
		}{{0, nil}, {time.Second, nil}, {time.Hour, busy}} {
			began := time.Now()
			err := filereplace.Rename(busy, func(string, string) error {
				if time.Since(began) < test.freeAfter {
					return busy
				}
				return nil
			})
			assert.Equal(t, test.err, err)
			assert.LessOrEqual(t, time.Since(began), 2100*time.Millisecond)
		}
	})
}
