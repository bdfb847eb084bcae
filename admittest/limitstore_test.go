package admittest_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
)

// wrong are stores that decide as a MemoryStore does, but for one thing.
var wrong = map[string]struct {
	change func(*admit.Decision)
	within string // the subtest that must fail
	says   string
}{
	"ages": {func(d *admit.Decision) {
		if d.RetryAfter > 0 {
			d.RetryAfter = 250 * 365 * 24 * time.Hour // longer than any bucket takes
		}
	}, "a_caller_that_waits_for_RetryAfter_is_admitted", "RetryAfter is 2190000h0m0s"},
	"a little": {func(d *admit.Decision) {
		if d.RetryAfter > 0 {
			d.RetryAfter += time.Second
		}
	}, "a_caller_that_waits_for_RetryAfter_is_admitted", "at most"},
	"no RetryAfter": {func(d *admit.Decision) { d.RetryAfter = 0 }, "a_caller_that_waits_for_RetryAfter_is_admitted", "without RetryAfter"},
	"no Next": {func(d *admit.Decision) {
		for i := range d.States {
			if d.States[i].Next > 0 {
				d.States[i].Next, d.States[i].Reset = 0, max(0, d.States[i].Reset-time.Second)
			}
		}
	}, "random_operations_agree_with_an_exact_model", "is not between"},
	"a Next of its own": {func(d *admit.Decision) {
		for i := range d.States {
			d.States[i].Next *= 2
		}
	}, "random_operations_agree_with_an_exact_model", "the next request is admitted after"},
	"all": {func(d *admit.Decision) {
		*d = admit.Decision{Allowed: true, States: d.States}
	}, "a_caller_that_waits_for_RetryAfter_is_admitted", "is never rejected"},
	"all, at once": {func(d *admit.Decision) {
		*d = admit.Decision{Allowed: true, States: d.States}
	}, "16_goroutines_get_no_more_than_one", "want 1000"},
}

// store is one of them.
type store struct {
	admit.LimitStore
	change func(*admit.Decision)
}

func (s store) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	d, err := s.LimitStore.Take(ctx, key, cost, limits)
	if err == nil {
		s.change(&d)
	}
	return d, err
}

const (
	runAs   = "ADMITTEST_STORE" // which of them TestWrongStore tests
	inSleep = "ADMITTEST_MOVABLE"
)

// TestWrongStore does nothing but where TestWrongStoresAreFound runs it.
func TestWrongStore(t *testing.T) {
	test, given := wrong[os.Getenv(runAs)]
	if !given {
		t.Skip("it fails, as it should, where TestWrongStoresAreFound runs it")
	}
	admittest.TestLimitStore(t, func(t *testing.T) admit.LimitStore {
		memory, err := admit.NewMemoryStore(admit.MemoryStoreConfig{})
		require.NoError(t, err)
		return store{memory, test.change}
	}, admittest.LimitStoreOptions{Bubble: os.Getenv(inSleep) != ""})
}

// Each wrong store is found, soon, whether its clock is moved or real.
func TestWrongStoresAreFound(t *testing.T) {
	t.Parallel()
	for name, test := range wrong {
		for _, movable := range []string{"", "yes"} {
			t.Run(name+" "+movable, func(t *testing.T) {
				t.Parallel()
				isFound(t, "TestWrongStore", test.within, test.says, runAs+"="+name, inSleep+"="+movable)
			})
		}
	}
}

// isFound runs a test in a process of its own, which must fail in one of its parts.
func isFound(t *testing.T, test, within, says string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+test+"$/^"+within+"$")
	run.Env = append(os.Environ(), env...)
	began := time.Now()
	output, err := run.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", output)
	assert.Equal(t, 1, exit.ExitCode(), "%s", output)
	assert.Contains(t, string(output), "--- FAIL: "+test+"/"+within)
	assert.Contains(t, string(output), says)
	assert.Less(t, time.Since(began), 30*time.Second)
}
