package lists_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/lists"
)

func TestCache(t *testing.T) {
	t.Parallel()
	var c lists.Cache[string, int]
	made := 0
	get := func(list ...string) int {
		v, err := c.Get(list, func([]string) (int, error) { made++; return made, nil })
		require.NoError(t, err)
		return v
	}
	for i, list := range [][]string{nil, {""}, {"", ""}, {"a"}, {"a", "b"}, {"b", "a"}, {"1", "2", "3", "4", "5"}, {"1", "2", "3", "4", "6"}} {
		assert.Equal(t, i+1, get(list...), "%q", list)
		assert.Equal(t, i+1, get(list...), "%q once more", list)
	}
	assert.Equal(t, 8, made)

	fault := errors.New("fault")
	for range 2 {
		_, err := c.Get([]string{"x"}, func([]string) (int, error) { made++; return 0, fault })
		require.ErrorIs(t, err, fault)
	}
	assert.Equal(t, 10, made, "an error is not kept")
}

func TestCacheKeepsItsOwnList(t *testing.T) {
	t.Parallel()
	var c lists.Cache[string, string]
	list := []string{"a"}
	join := func(l []string) (string, error) { return l[0], nil }
	_, _ = c.Get(list, join)
	list[0] = "b"
	v, _ := c.Get(list, join)
	assert.Equal(t, "b", v)
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	var c lists.Cache[int, int]
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 30_000 {
				v, _ := c.Get([]int{i, g % 2}, func(l []int) (int, error) { return l[0], nil })
				if v != i {
					t.Errorf("%d: %d", i, v)
				}
			}
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, c.Len(), 10_000)
}

func TestCacheAllocations(t *testing.T) {
	var c lists.Cache[string, int]
	one := func([]string) (int, error) { return 1, nil }
	for _, list := range [][]string{{"a"}, {"1", "2", "3", "4", "5"}} {
		_, _ = c.Get(list, one)
		assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = c.Get(list, one) }))
	}
}

// Each element of a list is one step, so that lists which begin alike cost what others do.
func BenchmarkCache(b *testing.B) {
	for _, at := range []int{0, 4} {
		b.Run(fmt.Sprint("differ at ", at), func(b *testing.B) {
			var c lists.Cache[string, int]
			all := make([][]string, 5000)
			for i := range all {
				all[i] = []string{"second", "minute", "hour", "day", "month"}
				all[i][at] = fmt.Sprint(i)
			}
			one := func([]string) (int, error) { return 1, nil }
			for i := 0; b.Loop(); i++ {
				_, _ = c.Get(all[i%len(all)], one)
			}
		})
	}
}
