package admit_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func newPlans(t testing.TB) *admit.Plans {
	t.Helper()
	p, err := admit.NewPlans(
		admit.Plan{Name: "free", Features: []string{"prices"}},
		admit.Plan{Name: "enterprise", Includes: "pro", Features: []string{"sso"}, UpgradeURL: "https://example.com/enterprise"},
		admit.Plan{Name: "pro", Includes: "starter", Features: []string{"history"}, UpgradeURL: "https://example.com/pro?a=1&b=2"},
		admit.Plan{Name: "starter", Includes: "free"},
		admit.Plan{Name: "archive", Includes: "free", Features: []string{"history", "archive"}, UpgradeURL: "https://example.com/archive"},
	)
	require.NoError(t, err)
	return p
}

func TestPlans(t *testing.T) {
	t.Parallel()
	p := newPlans(t)
	const ent, archive = "https://example.com/enterprise", "https://example.com/archive"
	needs := map[string]struct {
		wrap    admit.Middleware
		passes  string
		upgrade string // of the first plan, in the order of NewPlans, that would pass
	}{
		"AtLeast free":              {p.AtLeast("free"), "free starter pro enterprise archive", ""},
		"AtLeast starter":           {p.AtLeast("starter"), "starter pro enterprise", ent},
		"AtLeast pro":               {p.AtLeast("pro"), "pro enterprise", ent},
		"AtLeast enterprise":        {p.AtLeast("enterprise"), "enterprise", ent},
		"AtLeast archive":           {p.AtLeast("archive"), "archive", archive},
		"Features prices":           {p.Features("prices"), "free starter pro enterprise archive", ""},
		"Features history":          {p.Features("history"), "pro enterprise archive", ent},
		"Features history, archive": {p.Features("history", "archive"), "archive", archive},
		"Features sso, history":     {p.Features("sso", "history"), "enterprise", ent},
	}

	for name, need := range needs {
		h := need.wrap(ok)
		for _, plan := range []string{"free", "starter", "pro", "enterprise", "archive", "", "gone"} {
			logger, log := logged()
			r := get("/").WithContext(admit.WithKey(t.Context(), &admit.Key{ID: "k7", Plan: plan}))
			passes := false
			for _, passing := range strings.Fields(need.passes) {
				passes = passes || passing == plan
			}
			if passes {
				allowed(t, h, r)
				continue
			}
			e, header := refused(t, (&admit.ErrorWriter{Logger: logger}).Wrap(h), r, 402)
			assert.Equal(t, "plan_required", e.Code, "%s, plan %q", name, plan)
			assert.Equal(t, "This resource is not available on your current plan.", e.Message)
			assert.Equal(t, need.upgrade, e.UpgradeURL, "%s, plan %q", name, plan)
			assert.Equal(t, "no-store", header.Get("Cache-Control"))
			if plan == "" || plan == "gone" {
				assert.Contains(t, log.String(), "k7")
			} else {
				assert.Empty(t, log.String())
			}
		}
		logger, log := logged()
		refused(t, (&admit.ErrorWriter{Logger: logger}).Wrap(h), get("/"), 500)
		assert.Contains(t, log.String(), "put an Auth", name)
		refused(t, h, by(nil), 500)
	}
}

// The order says which plan is offered, not which is above another.
func TestPlansFromTheTop(t *testing.T) {
	t.Parallel()
	features := []string{"history"}
	p, err := admit.NewPlans(
		admit.Plan{Name: "top", Includes: "middle"},
		admit.Plan{Name: "middle", Includes: "bottom", Features: features},
		admit.Plan{Name: "bottom"},
	)
	require.NoError(t, err)
	features[0] = "changed"
	for _, h := range []http.Handler{p.AtLeast("middle")(ok), p.Features("history")(ok)} {
		allowed(t, h, by(&admit.Key{ID: "k", Plan: "top"}))
		allowed(t, h, by(&admit.Key{ID: "k", Plan: "middle"}))
		refused(t, h, by(&admit.Key{ID: "k", Plan: "bottom"}), 402)
	}
}

func TestPlansDoNotBuild(t *testing.T) {
	t.Parallel()
	_, err := admit.NewPlans(
		admit.Plan{Name: "a", Includes: "b"},
		admit.Plan{Name: "b", Includes: "a"},
		admit.Plan{Name: "self", Includes: "self"},
		admit.Plan{Name: "into", Includes: "a"}, // includes a cycle, and is in none
		admit.Plan{Name: "orphan", Includes: "nowhere"},
		admit.Plan{Name: "orphan", Includes: "orphan"},
		admit.Plan{},
		admit.Plan{Name: "features", Features: []string{"x", ""}},
		admit.Plan{Name: "url", UpgradeURL: "example.com/buy"},
		admit.Plan{Name: "script", UpgradeURL: "javascript:alert(1)"},
		admit.Plan{Name: "file", UpgradeURL: "ftp://example.com/buy"},
		admit.Plan{Name: "nobody's", UpgradeURL: "https:///buy"},
		admit.Plan{Name: "unreadable", UpgradeURL: "https://exa mple.com"},
		admit.Plan{Name: "fine", UpgradeURL: "http://example.com"},
		admit.Plan{Name: "last", Includes: "fire"},
		admit.Plan{Name: "limited", Limits: []admit.Limit{admit.PerHour(0)}},
	)
	require.Error(t, err)
	for _, part := range []string{
		`the plan "a" includes itself`, `the plan "b" includes itself`, `the plan "self" includes itself`, `Plans[4].Includes is "nowhere"`, `Plans[14].Includes is "fire"`,
		`Plans[5].Name is "orphan"`, "Plans[6].Name is empty", `Plans[7].Features[1] is empty`, `Plans[8].UpgradeURL is "example.com/buy"`, `Plans[9].UpgradeURL`,
		`Plans[10].UpgradeURL`, `Plans[11].UpgradeURL`, `Plans[12].UpgradeURL`, `Plans[15].Limits[0].Requests is 0`,
	} {
		assert.ErrorContains(t, err, part)
	}
	assert.NotContains(t, err.Error(), `"into" includes itself`)
	assert.NotContains(t, err.Error(), `Plans[13]`)
	assert.NotContains(t, err.Error(), `"orphan" includes itself`, "it is the first of the name that counts")
	assert.NotContains(t, err.Error(), `Plans[6].Includes`)
	_, err = admit.NewPlans()
	assert.Error(t, err)

	p := newPlans(t)
	assert.Panics(t, func() { p.AtLeast("gold") })
	assert.Panics(t, func() { p.AtLeast("") })
	assert.Panics(t, func() { p.Features() })
	assert.Panics(t, func() { p.Features("telepathy") })
	assert.Panics(t, func() { p.Features("sso", "archive") }, "no plan has both")
	assert.Panics(t, func() { p.AtLeast("pro")(nil) })
}

func TestPlansAllocations(t *testing.T) {
	h := newPlans(t).AtLeast("pro")(ok)
	w, r := newDiscard(), get("/").WithContext(admit.WithKey(t.Context(), &admit.Key{ID: "k", Plan: "enterprise"}))
	allocs(t, 0, func() { h.ServeHTTP(w, r) })
}
