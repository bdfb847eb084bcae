package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAllocs(t *testing.T) {
	t.Parallel()
	all := newResults(nil)
	require.NoError(t, all.read(strings.NewReader(output("10", "9", "30")+`
BenchmarkPolicy/case=whole/lib=admit-2        	 100	 10 ns/op	 0 B/op	 18 allocs/op
BenchmarkPolicy/case=whole/lib=admit-2        	 100	 10 ns/op	 0 B/op	 18 allocs/op
BenchmarkPolicy/case=whole/lib=admit-2        	 100	 10 ns/op	 0 B/op	 40 allocs/op
BenchmarkPolicy/case=whole/lib=admit.same-2   	 100	 10 ns/op	 0 B/op	 9 allocs/op
BenchmarkGrowth/by=keys/n=100/lib=admit-2     	 100	 10 ns/op	 0 B/op	 3 allocs/op
BenchmarkGrowth/by=offers/n=100/lib=admit-2   	 100	 10 ns/op	 0 B/op	 4 allocs/op
`)))
	got := all.allocs()
	assert.Equal(t, allocs{
		"Accept/case=one admit": 0, "Policy/case=whole admit": 18, "Policy/case=whole admit.same": 9, "Growth/by=offers/n=100 admit": 4,
	}, got, "medians, of admit alone, and of what is quick")

	back, err := readAllocs(string(got.text()))
	require.NoError(t, err)
	assert.Equal(t, got, back)
	for _, wrong := range []string{"Accept/case=one admit", "Accept/case=one admit x", "\n"} {
		_, err := readAllocs(wrong)
		assert.ErrorContains(t, err, allocsFile, "%q", wrong)
	}
}

func TestMoreAllocs(t *testing.T) {
	t.Parallel()
	before := allocs{"A admit": 1, "B admit": 2, "gone admit": 3}
	require.NoError(t, allocs{"A admit": 1, "B admit": 0, "new admit": 9}.moreThan(before))
	err := allocs{"A admit": 2, "B admit": 5}.moreThan(before)
	assert.EqualError(t, err, "A admit: 2 allocations, 1 before\nB admit: 5 allocations, 2 before")
}
