package admit_test

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// answering is a Policy for each field that has answers, with the codes of those.
func answering(t testing.TB) map[string]struct {
	policy admit.Policy
	codes  []string
} {
	t.Helper()
	plans := newPlans(t)
	negotiator, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{"text/plain"}})
	require.NoError(t, err)
	types, err := admit.NewContentTypes(admit.ContentTypesConfig{Allow: []string{"text/plain"}})
	require.NoError(t, err)
	total, err := admit.NewHandlerTimeout(admit.HandlerTimeoutConfig{FirstByte: time.Second})
	require.NoError(t, err)
	limiter := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(10)}})
	cache, err := admit.NewKeyCache(admit.KeyMap{}, admit.KeyCacheConfig{TTL: time.Minute, MaxKeys: 10})
	require.NoError(t, err)
	auth := newAuth(t, admit.AuthConfig{Store: cache, Failures: admit.PerMinute(60)})
	quotas := newQuotas(t, admit.QuotasConfig{Store: new(faultyQuotas), StoreDown: admit.RefuseAll})
	identity := func(h http.Handler) http.Handler { return h }
	type p = admit.Policy
	return map[string]struct {
		policy admit.Policy
		codes  []string
	}{
		"":               {p{}, []string{"internal"}},
		"Maintenance":    {p{Maintenance: new(admit.Maintenance)}, []string{"maintenance"}},
		"InFlight":       {p{InFlight: newInFlight(t, admit.InFlightConfig{Max: 1})}, []string{"overloaded"}},
		"AddressLimiter": {p{AddressLimiter: limiter}, []string{"rate_limited"}},
		"Methods":        {p{Methods: []string{"GET"}}, []string{"method_not_allowed", "not_implemented"}},
		"Auth":           {p{Auth: auth}, []string{"address_not_allowed", "bad_request", "key_invalid", "key_missing", "key_throttled", "store_unavailable"}},
		"Identity":       {p{Identity: identity}, []string{"address_not_allowed"}},
		"Scopes":         {p{Auth: auth, Scopes: []string{"read"}}, []string{"scope_required"}},
		"AtLeast":        {p{Auth: auth, Plans: plans, AtLeast: "pro"}, []string{"plan_required"}},
		"Features":       {p{Auth: auth, Plans: plans, Features: []string{"history"}}, []string{"plan_required"}},
		"Limiter":        {p{Limiter: limiter}, []string{"rate_limited"}},
		"Quotas":         {p{Auth: auth, Quotas: quotas}, []string{"quota_exceeded", "store_unavailable"}},
		"Accept":         {p{Accept: []string{"text/plain"}}, []string{"not_acceptable"}},
		"Negotiator":     {p{Negotiator: negotiator}, []string{"not_acceptable"}},
		"ContentType":    {p{ContentType: []string{"text/plain"}}, []string{"bad_request", "unsupported_media_type"}},
		"ContentTypes":   {p{ContentTypes: types}, []string{"bad_request", "unsupported_media_type"}},
		"MaxBody":        {p{MaxBody: 1}, []string{"bad_request", "body_too_large", "request_timeout"}},
		"BodyTimeout":    {p{BodyTimeout: admit.BodyTimeout{Grace: time.Second}}, []string{"bad_request", "request_timeout"}},
		"Shedder":        {p{Shedder: newShedder(t, admit.ShedderConfig{Max: 1})}, []string{"bad_request", "overloaded", "request_timeout"}},
		"Timeout":        {p{Timeout: time.Second}, []string{"bad_request", "handler_timeout", "request_timeout"}},
		"HandlerTimeout": {p{HandlerTimeout: total}, []string{"bad_request", "handler_timeout", "request_timeout"}},
	}
}

// A new field of Policy answers something, which is said here, or nothing, which is said too.
func TestAnswersOfEachField(t *testing.T) {
	t.Parallel()
	silent := []string{"ClientIP", "Observe", "Errors", "Plans", "WriteStall"}
	all := answering(t)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[admit.Policy]()) {
		assert.True(t, slices.Contains(silent, f.Name) || len(all[f.Name].codes) > 0, "what does Policy.%s answer?", f.Name)
	}
	quiet := admit.Policy{
		ClientIP: admit.ClientIP("X-Forwarded-For", anywhere), Observe: func(*http.Request, admit.Outcome) {}, Errors: new(admit.ErrorWriter), Plans: newPlans(t), WriteStall: time.Second,
	}
	assert.Len(t, quiet.Answers(), 1, "as of every chain")
	for field, test := range all {
		codes := map[string]bool{}
		for _, a := range test.policy.Answers() {
			if a.Field != field {
				continue
			}
			codes[a.Code] = true
			assert.Equal(t, a.Error.Status, a.Status)
			assert.Equal(t, a.Error.Code, a.Code)
			assert.Equal(t, a.Error.Message, a.Message)
			assert.NotEmpty(t, a.Message)
			assert.NotEmpty(t, a.When)
			assert.Equal(t, a.Error.RetryAfter > 0 || a.Code == "maintenance", slices.Contains(a.Headers, "Retry-After"), a.Message)
			assert.True(t, slices.IsSorted(a.Headers))
		}
		assert.Equal(t, test.codes, slices.Sorted(maps.Keys(codes)), field)
	}
}

// The rows follow the values: what cannot happen is not there.
func TestAnswersAreThoseOfTheValues(t *testing.T) {
	t.Parallel()
	has := func(p admit.Policy, code string) bool {
		require.NotNil(t, p.Answers())
		return slices.ContainsFunc(p.Answers(), func(a admit.Answer) bool { return a.Code == code })
	}
	keys := admit.KeyMap{}
	assert.False(t, has(admit.Policy{Auth: newAuth(t, admit.AuthConfig{Store: keys, Failures: admit.PerMinute(60)})}, "key_throttled"), "memory is never asked too often")
	assert.False(t, has(admit.Policy{Auth: newAuth(t, admit.AuthConfig{Store: keys, Optional: true})}, "key_missing"))
	assert.False(t, has(admit.Policy{Auth: newAuth(t, admit.AuthConfig{Store: keys})}, "store_unavailable"), "memory does not fail")
	cache, err := admit.NewKeyCache(keys, admit.KeyCacheConfig{TTL: time.Minute, MaxKeys: 10})
	require.NoError(t, err)
	assert.True(t, has(admit.Policy{Auth: newAuth(t, admit.AuthConfig{Store: cache})}, "store_unavailable"))

	store := takeFunc(func(context.Context, string, int, []admit.Limit) (admit.Decision, error) {
		return admit.Decision{}, nil
	})
	limit := admit.LimiterConfig{Name: "x", Limits: []admit.Limit{admit.PerDay(10)}, Store: store, StoreDown: admit.AdmitAll}
	assert.False(t, has(admit.Policy{Limiter: newLimiter(t, limit)}, "store_unavailable"))
	limit.StoreDown = admit.RefuseAll
	assert.True(t, has(admit.Policy{Limiter: newLimiter(t, limit)}, "store_unavailable"))
	limit.DryRun = true
	assert.False(t, has(admit.Policy{Limiter: newLimiter(t, limit)}, "rate_limited"))

	assert.False(t, has(admit.Policy{Quotas: newQuotas(t, admit.QuotasConfig{StoreDown: admit.RefuseAll})}, "store_unavailable"), "memory does not fail")
	assert.False(t, has(admit.Policy{Quotas: newQuotas(t, admit.QuotasConfig{Store: new(faultyQuotas), StoreDown: admit.AdmitAll})}, "store_unavailable"))
	assert.True(t, has(admit.Policy{Quotas: newQuotas(t, admit.QuotasConfig{})}, "quota_exceeded"))

	fallback, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: []string{"text/plain"}, Fallback: "text/plain"})
	require.NoError(t, err)
	assert.False(t, has(admit.Policy{Negotiator: fallback}, "not_acceptable"))

	for _, methods := range [][]string{nil, {"GET", "POST"}, {"GET"}} {
		bodies := !slices.Equal(methods, []string{"GET"})
		assert.Equal(t, bodies, has(admit.Policy{Methods: methods, Timeout: time.Second}, "request_timeout"), "%v", methods)
	}

	assert.Nil(t, admit.Policy{MaxBody: -1}.Answers(), "Chain says what is wrong")
}

// A cost that no bucket ever holds is not to be tried again.
func TestAnswersSayWhatIsRetryable(t *testing.T) {
	t.Parallel()
	p := admit.Policy{Limiter: newLimiter(t, admit.LimiterConfig{
		Limits: []admit.Limit{admit.PerDay(10)}, Cost: func(*http.Request) int { return 11 }, LegacyHeaders: true,
	})}
	retryable := map[string]bool{}
	for _, a := range p.Answers() {
		if a.Field == "Limiter" {
			assert.Contains(t, a.Headers, "X-RateLimit-Limit")
			retryable[a.Message] = a.Retryable
		}
	}
	never, _ := refused(t, p.Wrap(answer(200)), get("/"), 429)
	assert.Len(t, retryable, 2)
	assert.False(t, retryable[never.Message])
}

// So it is with a quota: the same request is let in again, or never.
func TestAnswersOfQuotasSayWhatIsRetryable(t *testing.T) {
	t.Parallel()
	p := admit.Policy{Quotas: newQuotas(t, admit.QuotasConfig{Cost: func(*http.Request) int { return 11 }}, admit.Quota{Requests: 10, Every: admit.Month})}
	retryable := map[string]bool{}
	for _, a := range p.Answers() {
		if a.Field == "Quotas" {
			assert.Equal(t, a.Retryable, slices.Contains(a.Headers, "Retry-After"))
			retryable[a.Message] = a.Retryable
		}
	}
	never, _ := refused(t, byKey(p.Wrap(answer(200)), &admit.Key{ID: "k", Plan: "pro"}), get("/"), 429)
	assert.Len(t, retryable, 2)
	assert.False(t, retryable[never.Message])
	assert.Contains(t, retryable, never.Message)
}

// The answers of a chain come in its order, which is that of the fields: package contract
// relies on it.
func TestAnswersAreInTheOrderOfTheFields(t *testing.T) {
	t.Parallel()
	var order []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[admit.Policy]()) {
		order = append(order, f.Name)
	}
	all := answering(t)
	whole := reflect.ValueOf(&admit.Policy{}).Elem()
	for _, field := range order {
		if slices.Contains([]string{"Identity", "Negotiator", "ContentTypes", "HandlerTimeout", "AddressLimiter"}, field) {
			continue // instead of another, or the same Limiter
		}
		if test, ok := all[field]; ok {
			whole.FieldByName(field).Set(reflect.ValueOf(test.policy).FieldByName(field))
		}
	}
	p := whole.Interface().(admit.Policy)
	p.Plans = newPlans(t)
	p.AddressLimiter = newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(10)}})
	var at []int
	for _, a := range p.Answers() {
		if a.Field != "" {
			at = append(at, slices.Index(order, a.Field))
		}
	}
	assert.Greater(t, len(at), 20)
	assert.True(t, slices.IsSorted(at), at)
}
