package limitmodel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/admit-go/admit"
)

// Source makes random numbers from bytes, so that a fuzzer can search for interesting ones. After
// the last byte it is Empty, and continues with its own numbers.
type Source struct {
	Bytes []byte
	after rand.PCG
}

// Uint64 implements rand.Source.
func (s *Source) Uint64() uint64 {
	if s.Empty() {
		return s.after.Uint64() // with only zeros, a rand.Rand would loop forever
	}
	var next [8]byte
	s.Bytes = s.Bytes[copy(next[:], s.Bytes):]
	return binary.LittleEndian.Uint64(next[:])
}

// Empty reports whether all bytes have been used.
func (s *Source) Empty() bool { return len(s.Bytes) == 0 }

// magnitude returns a number from 1 to most: as often small as large, and often 1 or most.
func magnitude(r *rand.Rand, most int64) int64 {
	switch r.IntN(8) {
	case 0:
		return 1
	case 1:
		return most
	case 2:
		return max(most-1, 1)
	}
	return min(1+r.Int64N(int64(1)<<r.IntN(63)), most)
}

// Limits returns up to three complete limits from the whole range of valid values.
func Limits(r *rand.Rand) []admit.Limit {
	limits := make([]admit.Limit, 1+r.IntN(3))
	for i := range limits {
		limits[i] = admit.Limit{Name: fmt.Sprint(i), Requests: 10, Per: time.Second}
		for range 8 {
			l := admit.Limit{Name: fmt.Sprint(i), Requests: int(magnitude(r, 1e9)), Per: time.Duration(magnitude(r, math.MaxInt64))}
			if r.IntN(2) == 0 {
				l.Burst = int(magnitude(r, 1e9))
			}
			if _, err := admit.CompleteLimits([]admit.Limit{l}); err == nil {
				limits[i] = l
				break
			}
		}
	}
	complete, err := admit.CompleteLimits(limits)
	if err != nil {
		panic(err) // never: each has been checked
	}
	return complete
}

// Cost returns a cost that a client or a service may ask for.
func Cost(r *rand.Rand, l admit.Limit) int {
	switch r.IntN(10) {
	case 0:
		return 0
	case 1:
		return l.Burst
	case 2:
		return l.Burst + 1
	case 3:
		return math.MaxInt - r.IntN(3)
	case 4:
		return math.MinInt + r.IntN(3)
	case 5:
		return -int(magnitude(r, int64(l.Burst)))
	case 6, 7:
		return int(magnitude(r, int64(l.Burst)))
	default:
		return 1
	}
}

// Pause returns a time to wait: none, about that of one request, or part of the time in which the
// bucket fills up.
func Pause(r *rand.Rand, l admit.Limit) time.Duration {
	one := int64(l.Per) / int64(l.Requests)
	switch r.IntN(6) {
	case 0, 1:
		return 0
	case 2:
		return time.Duration(max(one-1+int64(r.IntN(3)), 0))
	case 3:
		return time.Duration(magnitude(r, max(one, 1)))
	default:
		return time.Duration(float64(one) * float64(l.Burst) * r.Float64() * 1.2)
	}
}
