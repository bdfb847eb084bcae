package admit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/justinas/alice"

	"github.com/admit-go/admit"
)

// A resource for the plan pro, and for every plan that includes it.
func ExamplePlans_AtLeast() {
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free"},
		admit.Plan{Name: "pro", Includes: "free", UpgradeURL: "https://example.com/pro"},
		admit.Plan{Name: "enterprise", Includes: "pro"},
	)
	if err != nil {
		panic(err)
	}
	keys := admit.KeyMap{
		admit.DigestOf("small"): {ID: "k1", Plan: "free"},
		admit.DigestOf("large"): {ID: "k2", Plan: "enterprise"},
	}
	h := alice.New(admit.APIKey(keys), plans.AtLeast("pro")).ThenFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "the history")
	})
	for _, token := range []string{"large", "small"} {
		r := httptest.NewRequest("GET", "/history", nil)
		r.Header.Set("X-API-Key", token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 200 the history
	// 402 {"result":"error","message":"This resource is not available on your current plan.","code":"plan_required","upgrade_url":"https://example.com/pro"}
}
