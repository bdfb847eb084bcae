package filewatch_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/filewatch"
)

// recorder takes what does not begin with "bad", and keeps what it is told.
type recorder struct {
	taken   []string
	reports []string
}

func (r *recorder) config() filewatch.Config {
	return filewatch.Config{
		Take: func(text []byte, err error) error {
			switch {
			case err != nil:
				return err
			case string(text[:3]) == "bad":
				return errors.New(string(text))
			}
			r.taken = append(r.taken, string(text))
			return nil
		},
		Report: func(err error) {
			if err == nil {
				r.reports = append(r.reports, "fine")
			} else {
				r.reports = append(r.reports, err.Error())
			}
		},
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// file makes a file, and reads it.
func file(t *testing.T, text string) (string, filewatch.Version) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, text)
	v, err := filewatch.Read(path)
	require.NoError(t, err)
	require.Equal(t, text, string(v.Text))
	return path, v
}

// A change counts a second later. What is wrong is reported once, when it has been seen
// twice, and so is its end.
func TestFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path, v := file(t, "one")
		var r recorder
		w := filewatch.Follow(path, v, r.config())
		defer w.Close()
		steps := []struct {
			text, taken, report string
			after               time.Duration
		}{
			{"two", "two", "fine", time.Second},
			{"bad!", "", "", time.Second},
			{"bad!", "", "bad!", time.Second},
			{"bad!", "", "", time.Minute},
			{"bad?", "", "bad?", 2 * time.Second},
			{"two", "", "fine", time.Second}, // the one in use is back
			{"bad", "", "", time.Second},
			{"six", "six", "fine", time.Second}, // the doubt was not worth a line
			{"six", "", "", time.Minute},
		}
		time.Sleep(time.Millisecond) // the ticks come before the looks of this test
		for i, step := range steps {
			r = recorder{}
			write(t, path, step.text)
			time.Sleep(step.after)
			synctest.Wait()
			want := recorder{}
			if step.taken != "" {
				want.taken = []string{step.taken}
			}
			if step.report != "" {
				want.reports = []string{step.report}
			}
			assert.Equal(t, want, r, i)
		}
	})
}

// Close does not wait for a system call that hangs; whatever that brings is not taken.
func TestCloseDuringAHang(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]error{"it reads": nil, "it fails": errors.New("stale handle")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // which ends only when all its goroutines have
				path, v := file(t, "one")
				var r recorder
				var hanging atomic.Bool
				back := make(chan struct{})
				w := filewatch.FollowBy(path, v, r.config(), func(path string) (filewatch.Version, error) {
					hanging.Store(true)
					<-back
					v, err := filewatch.Read(path)
					return v, errors.Join(err, fails)
				})
				write(t, path, "two")
				time.Sleep(1500 * time.Millisecond)
				require.True(t, hanging.Load())
				for range 2 {
					began := time.Now()
					w.Close()
					assert.Less(t, time.Since(began), time.Second)
				}
				close(back)
				<-w.Ended()
				assert.Equal(t, recorder{}, r)
			})
		})
	}
}

// Close does not wait for a report that hangs.
func TestCloseDuringAReport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path, v := file(t, "one")
		var r recorder
		c := r.config()
		back := make(chan struct{})
		c.Report = func(error) { <-back }
		w := filewatch.Follow(path, v, c)
		write(t, path, "two")
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, []string{"two"}, r.taken)
		began := time.Now()
		w.Close()
		assert.Less(t, time.Since(began), time.Second)
		close(back)
		<-w.Ended()
	})
}

// Close waits for Take, so that nothing is taken after it.
func TestCloseDuringATake(t *testing.T) {
	t.Parallel()
	path, v := file(t, "one")
	taking := make(chan struct{})
	var taken atomic.Bool
	w := filewatch.Follow(path, v, filewatch.Config{
		Take: func([]byte, error) error {
			close(taking)
			for began := time.Now(); time.Since(began) < 300*time.Millisecond; { // longer than Close is patient
			}
			taken.Store(true)
			return nil
		},
		Report: func(error) {},
	})
	write(t, path, "two")
	<-taking
	w.Close()
	assert.True(t, taken.Load())
	<-w.Ended()
}

// A file may be written in place by a tool that sets its time back, with a text of the same
// length: that is found out too, if later.
func TestFollowFindsAChangeWithoutATrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path, _ := file(t, "one")
		past := time.Now().Add(-time.Hour)
		require.NoError(t, os.Chtimes(path, past, past))
		v, err := filewatch.Read(path)
		require.NoError(t, err)
		var r recorder
		w := filewatch.Follow(path, v, r.config())
		defer w.Close()
		time.Sleep(10*time.Second + time.Millisecond) // between two looks
		write(t, path, "two")
		require.NoError(t, os.Chtimes(path, past, past))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, recorder{taken: []string{"two"}, reports: []string{"fine"}}, r)
	})
}
