package main

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit/integration/guides/internal/program"
)

// The program of the README serves, and counts what it serves.
func TestProgram(t *testing.T) {
	t.Parallel()
	at, _ := program.Start(t, nil, "127.0.0.1:8080", "127.0.0.1:9464")
	status, _ := program.Get(t, "http://"+at[0]+"/hello")
	assert.Equal(t, 200, status)
	status, _ = program.Get(t, "http://"+at[0]+"/metrics")
	assert.Equal(t, 404, status)
	_, scrape := program.Get(t, "http://"+at[1]+"/metrics")
	for _, want := range []string{
		`http_server_request_duration_seconds_count{admit_plan="",error_type="",http_request_method="GET",http_response_status_code="200",http_route="/hello",url_scheme="http"} 1`,
		`admit_limit_usage_count{admit_limit="minute",admit_limiter="api",admit_plan=""} 1`,
		`admit_limiter_callers{admit_name="api"} 1`,
	} {
		assert.Contains(t, scrape, want)
	}
}
