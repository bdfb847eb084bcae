//go:build unix

package filewatch_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/filewatch"
)

// To open a pipe that nobody writes to hangs in open(2) itself.
func TestCloseDuringOpen(t *testing.T) {
	t.Parallel()
	path, v := file(t, "one")
	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	var r recorder
	opening := make(chan struct{})
	w := filewatch.FollowBy(path, v, r.config(), func(path string) (filewatch.Version, error) {
		close(opening)
		return filewatch.Read(path)
	})
	<-opening
	began := time.Now()
	w.Close()
	assert.Less(t, time.Since(began), time.Second)
	select {
	case <-w.Ended():
		t.Fatal("it does not hang")
	default:
	}

	pipe, err := os.OpenFile(path, os.O_WRONLY, 0) // which the one that hangs lets through
	require.NoError(t, err)
	_, err = pipe.WriteString("two")
	require.NoError(t, err)
	require.NoError(t, pipe.Close())
	select {
	case <-w.Ended():
	case <-time.After(10 * time.Second):
		t.Fatal("the goroutine has not ended")
	}
	assert.Equal(t, recorder{}, r)
}
