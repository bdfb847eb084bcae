//go:build unix

package filereplace_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// A link stays one, and what it leads to is replaced. One that leads nowhere is an error.
func TestWithFollowsALink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	real, link, far := filepath.Join(dir, "real"), filepath.Join(dir, "link"), filepath.Join(dir, "far")
	require.NoError(t, os.Symlink("real", link))
	require.NoError(t, os.Symlink("link", far))
	for _, path := range []string{link, far} {
		require.ErrorContains(t, filereplace.With(path, []byte("x")), "which does not exist: create that file, or remove the link")
	}
	require.NoError(t, os.WriteFile(real, []byte("old"), 0o600))
	for _, path := range []string{link, far} {
		require.NoError(t, filereplace.With(path, []byte(path)))
		info, err := os.Lstat(path)
		require.NoError(t, err)
		assert.NotZero(t, info.Mode()&os.ModeSymlink)
		text, err := os.ReadFile(real)
		require.NoError(t, err)
		assert.Equal(t, path, string(text))
	}
	require.NoError(t, os.Symlink("round", filepath.Join(dir, "round")))
	assert.Error(t, filereplace.With(filepath.Join(dir, "round"), []byte("x")))
}

// What the next test sees where a machine lets nobody make a mount.
func TestRenameOfAMount(t *testing.T) {
	t.Parallel()
	busy := &os.LinkError{Op: "rename", Old: "from", New: "to", Err: syscall.EBUSY}
	err := filereplace.Rename(nil, func(string, string) error { return busy })
	require.ErrorIs(t, err, syscall.EBUSY)
	assert.ErrorContains(t, err, "to is itself a mount, which cannot be replaced: mount its directory instead")
}

// A file that is a mount, as in a container, cannot be replaced. The test runs itself in a
// mount namespace of its own.
func TestWithSaysWhatAMountIs(t *testing.T) {
	if path := os.Getenv("FILEREPLACE_MOUNT"); path != "" {
		require.ErrorContains(t, filereplace.With(path, []byte("new")), path+" is itself a mount, which cannot be replaced: mount its directory instead")
		return
	}
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	const inside = `mount --bind "$1" "$1" 2>/dev/null || exit 77
exec "$2" -test.run '^TestWithSaysWhatAMountIs$'`
	c := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh", path, os.Args[0])
	c.Env = append(os.Environ(), "FILEREPLACE_MOUNT="+path)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if errors.Is(err, exec.ErrNotFound) || errors.As(err, &exit) && !strings.Contains(string(out), "FAIL") {
		t.Skipf("this machine lets nobody make a mount: %s", out)
	}
	require.NoError(t, err, "%s", out)
	alone(t, path)
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
