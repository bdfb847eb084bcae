package admit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/admit-go/admit"
)

// A plan sells a number of requests for each month. The Limiter bounds how fast they may come;
// requests that it rejects do not count.
func ExampleNewQuotas() {
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5)}, Quotas: []admit.Quota{{Requests: 2, Every: admit.Month}}},
		admit.Plan{
			Name: "pro", Limits: []admit.Limit{admit.PerSecond(50)}, UpgradeURL: "https://example.com/pro",
			Quotas: []admit.Quota{{Requests: 1_000_000, Every: admit.Month, Soft: true}}, // requests beyond it are billed
		},
	)
	if err != nil {
		panic(err)
	}
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("key"): {ID: "k1", Owner: "acme", Plan: "free"}}})
	if err != nil {
		panic(err)
	}
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}})
	if err != nil {
		panic(err)
	}
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	if err != nil {
		panic(err)
	}
	defer quotas.Close(context.Background()) // after Server.Shutdown

	sold := admit.Policy{Auth: auth, Plans: plans, Limiter: limiter, Quotas: quotas}
	usage := sold
	usage.Quotas = nil // a look at the usage does not count
	mux := http.NewServeMux()
	mux.Handle("GET /prices", sold.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	mux.Handle("GET /usage", usage.Wrap(quotas.Usage()))

	for _, path := range []string{"/prices", "/prices", "/prices", "/usage"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("X-API-Key", "key")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		var answer struct {
			Code       string
			UpgradeURL string `json:"upgrade_url"`
			Data       struct{ Quotas []admit.QuotaUsage }
		}
		_ = json.Unmarshal(w.Body.Bytes(), &answer)
		fmt.Println(path, w.Code)
		if answer.Code != "" {
			fmt.Println(answer.Code, answer.UpgradeURL)
		}
		for _, q := range answer.Data.Quotas {
			fmt.Println(q.Name, q.Limit, q.Used, q.Remaining)
		}
	}
	// Output:
	// /prices 200
	// /prices 200
	// /prices 429
	// quota_exceeded https://example.com/pro
	// /usage 200
	// month 2 2 0
}

// A month begins on the billing day of an account, which its keys have in Meta. For the 31st,
// this is the last day of a shorter month.
func ExampleQuotasConfig_billingDay() {
	plans, err := admit.NewPlans(admit.Plan{Name: "pro", Quotas: []admit.Quota{{Requests: 1_000_000, Every: admit.Month}}})
	if err != nil {
		panic(err)
	}
	quotas, err := admit.NewQuotas(admit.QuotasConfig{
		Plans: plans, Store: admit.NewMemoryQuotaStore(),
		Anchor: func(k *admit.Key) time.Time {
			day, _ := time.Parse(time.DateOnly, k.Meta["billed_since"]) // without one, the first of the month
			return day
		},
	})
	if err != nil {
		panic(err)
	}
	key := &admit.Key{ID: "k1", Owner: "acme", Plan: "pro", Meta: map[string]string{"billed_since": "2024-01-31"}}
	usage, err := quotas.Of(context.Background(), key)
	if err != nil {
		panic(err)
	}
	next := usage[0].ResetsAt
	fmt.Println(next.Day() == 31 || next.AddDate(0, 0, 1).Day() == 1, next.Format(time.TimeOnly))
	// Output:
	// true 00:00:00
}

// Notify is called when an account has used 80% of a quota, and when it has used it up.
func ExampleQuotaNotice() {
	plans, err := admit.NewPlans(admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 10, Every: admit.Month}}})
	if err != nil {
		panic(err)
	}
	mails := make(chan string, 10)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{
		Plans: plans, Store: admit.NewMemoryQuotaStore(),
		Notify: func(n admit.QuotaNotice) {
			mails <- fmt.Sprintf("to %s: %d of %d requests of this %s are used", n.Account, n.Used, n.Limit, n.Quota)
		},
	})
	if err != nil {
		panic(err)
	}
	h := quotas.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: "k1", Owner: "acme", Plan: "free"}))
	for range 9 {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	fmt.Println(<-mails)
	// Output:
	// to acme: 8 of 10 requests of this month are used
}
