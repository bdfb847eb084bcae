package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/guides/internal/program"
)

// The program of the README prints a span of a request, and its metrics.
func TestProgram(t *testing.T) {
	t.Parallel()
	at, printed := program.Start(t, []string{"OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_METRIC_EXPORT_INTERVAL=50"}, "127.0.0.1:8080")
	status, _ := program.Get(t, "http://"+at[0]+"/hello")
	assert.Equal(t, 200, status)
	require.Eventually(t, func() bool {
		out := printed.String()
		return strings.Contains(out, `"Name":"GET /hello"`) && strings.Contains(out, `"Name":"admit.limit.usage"`) &&
			strings.Contains(out, `"Name":"http.server.request.duration"`)
	}, 10*time.Second, 10*time.Millisecond, "%s", printed)
}
