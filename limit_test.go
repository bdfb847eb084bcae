package admit_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func TestCompleteLimits(t *testing.T) {
	t.Parallel()
	given := []admit.Limit{{Requests: 3, Per: time.Minute}, {Name: "x", Requests: 5, Per: time.Second, Burst: 2}, {Requests: 1, Per: 500 * time.Microsecond}}
	complete, err := admit.CompleteLimits(given)
	require.NoError(t, err)
	assert.Equal(t, []admit.Limit{{"1m0s", 3, time.Minute, 3}, {"x", 5, time.Second, 2}, {"500us", 1, 500 * time.Microsecond, 1}}, complete)
	assert.Empty(t, given[0].Name, "the limits are read-only")

	_, err = admit.CompleteLimits(nil)
	require.ErrorContains(t, err, "no limit")
	_, err = admit.CompleteLimits([]admit.Limit{{Name: "a", Per: 1}, {Name: "b", Requests: 1}})
	require.ErrorContains(t, err, `"a"`)
	require.ErrorContains(t, err, `"b"`)
}
