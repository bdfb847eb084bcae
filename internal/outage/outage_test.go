package outage_test

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit/internal/outage"
)

func TestOutageIsToldOnceEachWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := outage.Outage{Quiet: 500 * time.Millisecond}
		_, _, tell := o.Worked()
		assert.False(t, tell, "nothing has failed")
		assert.True(t, o.Failed())
		for range 9 {
			time.Sleep(400 * time.Millisecond)
			_, _, tell = o.Worked()
			assert.False(t, tell, "it may fail again in a moment")
			assert.False(t, o.Failed())
			o.Without()
		}
		time.Sleep(500 * time.Millisecond)
		away, without, tell := o.Worked()
		assert.True(t, tell)
		assert.Equal(t, 4100*time.Millisecond, away)
		assert.EqualValues(t, 9, without)
		_, _, tell = o.Worked()
		assert.False(t, tell)
	})
}

// What fails once in a while is told of once a minute, and so is one outage that goes on.
func TestOutageFillsNoLog(t *testing.T) {
	t.Parallel()
	for name, works := range map[string]bool{"flaps": true, "goes on": false} {
		synctest.Test(t, func(t *testing.T) {
			var o outage.Outage
			began, ended := 0, 0
			for range 10 * 60 {
				if o.Failed() {
					began++
				}
				time.Sleep(time.Second)
				if !works {
					continue
				}
				if _, _, tell := o.Worked(); tell {
					ended++
				}
			}
			assert.Equal(t, 10, began, name)
			assert.Equal(t, map[bool]int{true: 10, false: 0}[works], ended, name)
		})
	}
}

// An end is told where its beginning was.
func TestOutageThatWasNotToldEndsInSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o outage.Outage
		for i, told := range []bool{true, false, true} {
			assert.Equal(t, told, o.Failed(), i)
			time.Sleep(20 * time.Second)
			_, _, tell := o.Worked()
			assert.Equal(t, told, tell, i)
			time.Sleep(20 * time.Second)
		}
	})
}

func TestOutageManyHands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o outage.Outage
		var all sync.WaitGroup
		var mu sync.Mutex
		began, ended, counted := 0, 0, int64(0)
		for range 50 {
			all.Go(func() {
				if o.Failed() {
					mu.Lock()
					defer mu.Unlock()
					began++
				}
				o.Without()
			})
		}
		all.Wait()
		time.Sleep(time.Second)
		for range 50 {
			all.Go(func() {
				if _, n, tell := o.Worked(); tell {
					mu.Lock()
					defer mu.Unlock()
					ended, counted = ended+1, n
				}
			})
		}
		all.Wait()
		assert.Equal(t, []int{1, 1}, []int{began, ended})
		assert.GreaterOrEqual(t, counted, int64(1))
		assert.LessOrEqual(t, counted, int64(50))
	})
}

// An outage begins with a warning and ends with an info line. Its duration has a unit, whichever
// handler writes it.
func TestLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines strings.Builder
		l := outage.Log{Logger: slog.New(slog.NewJSONHandler(&lines, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))}
		l.Works("works")
		l.Fails("fails", errors.New("refused"))
		time.Sleep(2042277464)
		l.Works("works")
		assert.Equal(t, `{"level":"WARN","msg":"fails","error":"refused"}`+"\n"+`{"level":"INFO","msg":"works","away":"2.042s"}`+"\n", lines.String())
	})
}
