package admit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func TestCompleteLimits(t *testing.T) {
	t.Parallel()
	given := []admit.Limit{{Requests: 3, Per: time.Minute}, {Name: "x", Requests: 5, Per: time.Second, Burst: 2}, {Requests: 1, Per: 1500 * time.Microsecond}}
	complete, err := admit.CompleteLimits(given)
	require.NoError(t, err)
	assert.Equal(t, []admit.Limit{{"1m0s", 3, time.Minute, 3}, {"x", 5, time.Second, 2}, {"1.5ms", 1, 1500 * time.Microsecond, 1}}, complete)
	assert.Empty(t, given[0].Name, "the limits are read-only")

	_, err = admit.CompleteLimits(nil)
	require.ErrorContains(t, err, "Limits is empty")
	_, err = admit.CompleteLimits([]admit.Limit{{Name: "a", Per: 1}, {Name: "b", Requests: 1}})
	require.ErrorContains(t, err, "Limits[0].Requests is 0")
	require.ErrorContains(t, err, "Limits[1].Per is 0s")
}

func TestLimitsAtTheirBounds(t *testing.T) {
	t.Parallel()
	const century = 100 * 365 * 24 * time.Hour
	for name, test := range map[string]struct {
		limit admit.Limit
		fault string // "": none
	}{
		"most requests":                 {admit.Limit{Requests: 1e9, Per: time.Hour}, ""},
		"too many requests":             {admit.Limit{Requests: 1e9 + 1, Per: time.Hour}, "Requests is 1000000001; it needs 1 to 1000000000"},
		"no requests":                   {admit.Limit{Per: time.Hour}, "Requests is 0"},
		"shortest period":               {admit.Limit{Requests: 1, Per: time.Millisecond}, ""},
		"too short a period":            {admit.Limit{Requests: 1, Per: time.Millisecond - 1}, "give it a unit, such as 10*time.Second"},
		"a period without its unit":     {admit.Limit{Requests: 1, Per: 60}, "Per is 60ns; a number alone is nanoseconds: give it a unit, such as 10*time.Second (at least 1ms)"},
		"no period":                     {admit.Limit{Requests: 1}, "Per is 0s"},
		"a period before time":          {admit.Limit{Requests: 1, Per: -1}, "Per is -1ns"},
		"one in a nanosecond":           {admit.Limit{Requests: 1_000_000, Per: time.Millisecond}, ""},
		"more than one in a nanosecond": {admit.Limit{Requests: 1_000_001, Per: time.Millisecond}, "more than one in a nanosecond"},
		"largest burst":                 {admit.Limit{Requests: 1000, Per: time.Second, Burst: 1e9}, ""},
		"too large a burst":             {admit.Limit{Requests: 1000, Per: time.Second, Burst: 1e9 + 1}, "Burst is 1000000001"},
		"a burst of less than none":     {admit.Limit{Requests: 1, Per: time.Second, Burst: -1}, "Burst is -1"},
		"slowest":                       {admit.Limit{Requests: 1, Per: century}, ""},
		"too slow":                      {admit.Limit{Requests: 1, Per: century + time.Hour}, "a hundred years"},
		"too slow for its burst":        {admit.Limit{Requests: 1, Per: century / 10, Burst: 11}, "a hundred years"},
		"all characters":                {admit.Limit{Name: " az~", Requests: 1, Per: time.Second}, ""},
		"longest name":                  {admit.Limit{Name: strings.Repeat("x", 64), Requests: 1, Per: time.Second}, ""},
		"too long a name":               {admit.Limit{Name: strings.Repeat("x", 65), Requests: 1, Per: time.Second}, "1 to 64 printable"},
		"a name before ASCII's first":   {admit.Limit{Name: "a\x1fz", Requests: 1, Per: time.Second}, "1 to 64 printable"},
		"a name after ASCII's last":     {admit.Limit{Name: "a\x7fz", Requests: 1, Per: time.Second}, "1 to 64 printable"},
	} {
		_, err := admit.CompleteLimits([]admit.Limit{test.limit})
		if test.fault == "" {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorContains(t, err, test.fault, name)
		}
	}
}
