package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// most is the worst that was admitted.
type most struct {
	per   int // in any one Per of the limit
	ahead int // in any time, beyond what the rate of the limit gives back in it
}

// moments are the beginnings of the times that are looked at.
const moments = 5 * time.Millisecond

// mostIn looks at the decisions in the order of their ends. One counts for a time that has all of
// it, since it was made in there for sure.
func mostIn(decisions []decision) (m most) {
	rate := float64(limit.Requests) / limit.Per.Seconds()
	var first, last time.Duration = math.MaxInt64, 0
	for _, d := range decisions {
		first, last = min(first, d.from), max(last, d.to)
	}
	if last == 0 {
		return m
	}
	// since has, of the requests that came at a moment or later, how many were admitted by now.
	since := make([]int, int((last-first)/moments)+1)
	for _, d := range sortedByEnd(decisions) {
		if !d.admitted {
			continue
		}
		for i := range int((d.from-first)/moments) + 1 {
			since[i]++
			lasts := d.to - first - time.Duration(i)*moments
			m.ahead = max(m.ahead, since[i]-int(math.Ceil(rate*lasts.Seconds())))
			if lasts <= limit.Per {
				m.per = max(m.per, since[i])
			}
		}
	}
	return m
}

func sortedByEnd(decisions []decision) []decision {
	return slices.SortedFunc(slices.Values(decisions), func(a, b decision) int { return cmp.Compare(a.to, b.to) })
}
