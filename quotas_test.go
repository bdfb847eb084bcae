package admit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// quotaService is a service that sells what its plans say.
type quotaService struct {
	*admit.Quotas
	store   *faultyQuotas
	handler http.Handler // the key is what the header Key says: plan, or plan and owner
	notices chan admit.QuotaNotice
}

// faultyQuotas is a store that can be away, and counts its calls.
type faultyQuotas struct {
	admit.QuotaStore
	mu     sync.Mutex
	err    error // of calls that do nothing
	lost   error // of calls that have done what they should
	calls  int
	claims int
}

func (s *faultyQuotas) Settle(ctx context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.claims += len(claims)
	if s.err != nil {
		return nil, s.err
	}
	balances, err := s.QuotaStore.Settle(ctx, claims)
	if s.lost != nil {
		return nil, s.lost
	}
	return balances, err
}

func (s *faultyQuotas) lose(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = err
}

func (s *faultyQuotas) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func newQuotaService(t testing.TB, plan admit.Plan, handler http.Handler, configure ...func(*admit.QuotasConfig)) *quotaService {
	plans, err := admit.NewPlans(plan, admit.Plan{Name: "pro", UpgradeURL: "https://example.com/pro", Quotas: []admit.Quota{{Requests: 1_000_000, Every: admit.Month}}})
	require.NoError(t, err)
	s := &quotaService{store: &faultyQuotas{QuotaStore: admit.NewMemoryQuotaStore()}, notices: make(chan admit.QuotaNotice, 100)}
	c := admit.QuotasConfig{Plans: plans, Store: s.store, Notify: func(n admit.QuotaNotice) { s.notices <- n }}
	for _, f := range configure {
		f(&c)
	}
	s.Quotas, err = admit.NewQuotas(c)
	require.NoError(t, err)
	s.handler = withQuotaKey((&admit.ErrorWriter{Logger: discardLogs}).Wrap(s.Wrap(handler)))
	return s
}

// withQuotaKey takes the key of a request from its headers.
func withQuotaKey(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := &admit.Key{ID: "k", Plan: "free", Owner: r.Header.Get("Owner"), Meta: map[string]string{"hour": r.Header.Get("Hour")}}
		if text := r.Header.Get("Quota"); text != "" {
			q := admit.Quota{Every: admit.Month}
			_, _ = fmt.Sscan(text, &q.Requests)
			key.Quotas = []admit.Quota{q}
		}
		next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
	})
}

func monthly(n int64) admit.Plan {
	return admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: n, Every: admit.Month}}}
}

func (s *quotaService) get(headers ...string) *httptest.ResponseRecorder {
	r := get("/")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

func (s *quotaService) used(t testing.TB) int64 {
	usage, err := s.Of(t.Context(), &admit.Key{ID: "k", Plan: "free"})
	require.NoError(t, err)
	require.Len(t, usage, 1)
	return usage[0].Used
}

func TestQuotasRefuseWhatExceedsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is 2000-01-01 00:00 UTC
		time.Sleep(15*24*time.Hour + time.Second/2)
		s := newQuotaService(t, monthly(10), ok)
		for i := range 10 {
			w := s.get()
			assert.Equal(t, http.StatusOK, w.Code)
			assert.Equal(t, `"month";q=10;w=2678400`, w.Header().Get("RateLimit-Policy"))
			assert.Equal(t, fmt.Sprintf(`"month";r=%d;t=1382400`, 9-i), w.Header().Get("RateLimit"))
		}
		w := s.get()
		assert.Equal(t, http.StatusTooManyRequests, w.Code)
		assert.JSONEq(t, `{"result":"error","code":"quota_exceeded","message":"The quota of this period is used up.",
			"limits":["month"],"retry_after":1382400,"resets_at":"2000-02-01T00:00:00Z","upgrade_url":"https://example.com/pro"}`, w.Body.String())
		assert.Equal(t, "1382400", w.Header().Get("Retry-After"))
		assert.Equal(t, `"month";r=0;t=1382400`, w.Header().Get("RateLimit"))

		time.Sleep(16*24*time.Hour - time.Second/2) // the instant of the reset is in the next period
		w = s.get()
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Equal(t, `"month";q=10;w=2505600`, w.Header().Get("RateLimit-Policy"), "the February of a leap year")
		assert.Equal(t, `"month";r=9;t=2505600`, w.Header().Get("RateLimit"))
	})
}

func TestQuotasAskTheStoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(1_000_000), ok)
		for range 50_000 {
			require.Equal(t, http.StatusOK, s.get().Code)
		}
		synctest.Wait()
		assert.Less(t, s.store.calls, 50_000/1000)
		assert.EqualValues(t, 50_000, s.used(t))
	})
}

func TestQuotasCountWhatReachedTheHandler(t *testing.T) {
	type result struct {
		status int
		counts bool
	}
	read := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.ReadAll(r.Body)
		return err
	})
	status := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	mux := http.NewServeMux()
	mux.Handle("/", admit.ContentType("text/plain")(ok))
	for name, test := range map[string]struct {
		h    http.Handler
		body string
		want result
	}{
		"200":                     {ok, "", result{200, true}},
		"nothing written":         {http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "", result{200, true}},
		"304":                     {status(304), "", result{304, true}},
		"404 of the handler":      {admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return admit.NewError(404, "") }), "", result{404, true}},
		"413 of the handler":      {status(413), "", result{413, true}},
		"500":                     {status(500), "", result{500, false}},
		"panic":                   {http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("as asked for") }), "", result{500, false}},
		"405":                     {admit.Methods("GET")(ok), "x", result{405, false}},
		"415":                     {admit.ContentType("text/plain")(ok), "x", result{415, false}},
		"415 of a route":          {mux, "x", result{415, false}},
		"413 by Content-Length":   {admit.MaxBody(3)(read), "12345", result{413, false}},
		"413 in Read":             {admit.MaxBody(3)(read), "chunked", result{413, false}},
		"413 that nobody answers": {admit.MaxBody(3)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) })), "chunked", result{200, true}},
		"timeout":                 {admit.Timeout(time.Millisecond)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })), "", result{503, false}},
		"two handlers, one refuses": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			admit.ContentType("text/plain")(ok).ServeHTTP(httptest.NewRecorder(), r)
			ok.ServeHTTP(w, r)
		}), "x", result{200, false}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newQuotaService(t, monthly(10), test.h)
			r := httptest.NewRequest("POST", "/", strings.NewReader(test.body))
			if test.body == "chunked" {
				r.ContentLength = -1
			}
			w := httptest.NewRecorder()
			wrap(s.handler, (&admit.ErrorWriter{Logger: discardLogs}).Wrap, admit.Recover).ServeHTTP(w, r)
			assert.Equal(t, test.want.status, w.Code)
			want := int64(0)
			if test.want.counts {
				want = 1
			}
			assert.Equal(t, want, s.used(t))
		})
	}
}

func TestQuotasOfAKeyHoldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(3), ok)
		for range 3 {
			assert.Equal(t, http.StatusOK, s.get().Code)
		}
		assert.Equal(t, http.StatusTooManyRequests, s.get().Code)
		assert.Equal(t, http.StatusOK, s.get("Quota: 4").Code, "more was sold")
		w := s.get("Quota: 4")
		assert.Equal(t, http.StatusTooManyRequests, w.Code)
		assert.Contains(t, w.Body.String(), "https://example.com/pro")
		assert.Equal(t, http.StatusTooManyRequests, s.get("Quota: 2").Code)
		assert.Equal(t, http.StatusOK, s.get("Quota: 2000000").Code)
		assert.NotContains(t, s.get("Quota: 4").Body.String(), "https://example.com/free")
		assert.EqualValues(t, 5, s.used(t))
	})
}

func TestQuotasWithoutTheStore(t *testing.T) {
	away := errors.New("away")
	for _, down := range []admit.StoreDown{admit.LimitLocally, admit.AdmitAll, admit.RefuseAll} {
		t.Run(down.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuotaService(t, monthly(1000), ok, func(c *admit.QuotasConfig) { c.StoreDown, c.Replicas = down, 4 })
				for range 400 {
					require.Equal(t, http.StatusOK, s.get().Code)
				}
				s.store.fail(away)
				admitted := 400
				last := 0
				for range 1000 {
					if last = s.get().Code; last == http.StatusOK {
						admitted++
					}
				}
				switch down {
				case admit.LimitLocally:
					assert.InDelta(t, 400+600/4, admitted, 10)
					assert.Equal(t, http.StatusServiceUnavailable, last, "there may be more when the store is back")
				case admit.AdmitAll:
					assert.Equal(t, 1400, admitted)
				case admit.RefuseAll:
					assert.InDelta(t, 400, admitted, 10, "what was taken ahead")
					assert.Equal(t, http.StatusServiceUnavailable, last)
				}
				s.store.fail(nil)
				assert.EqualValues(t, admitted, s.used(t), "nothing is lost")
			})
		})
	}
}

func TestQuotasTellOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 100, Every: admit.Day, Soft: true}}}
		s := newQuotaService(t, plan, ok)
		other, err := admit.NewQuotas(admit.QuotasConfig{Plans: mustPlans(t, plan), Store: s.store, Notify: func(n admit.QuotaNotice) { s.notices <- n }})
		require.NoError(t, err)
		both := []http.Handler{s.handler, withQuotaKey(other.Wrap(ok))}
		for i := range 300 {
			w := httptest.NewRecorder()
			both[i%2].ServeHTTP(w, get("/"))
			require.Equal(t, http.StatusOK, w.Code, "soft")
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		close(s.notices)
		var percents []int
		for n := range s.notices {
			percents = append(percents, n.Percent)
			assert.Equal(t, "k", n.Account)
			assert.Equal(t, "day", n.Quota)
			assert.EqualValues(t, 100, n.Limit)
			assert.GreaterOrEqual(t, n.Used, int64(n.Percent))
			assert.Equal(t, time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC), n.ResetsAt)
		}
		assert.Equal(t, []int{80, 100}, percents)
	})
}

func (s *quotaService) balance(t testing.TB) admit.QuotaBalance {
	b, err := s.store.QuotaStore.Settle(t.Context(), []admit.QuotaClaim{{Account: "k", Quota: "month", Period: "2000-01-01/P1M"}})
	require.NoError(t, err)
	return b[0]
}

// The first claim of a process only learns what the store has.
func TestQuotasTellAlsoOneRequest(t *testing.T) {
	soft := admit.Plan{Name: "free", Quotas: []admit.Quota{{Requests: 100, Every: admit.Month, Soft: true}}}
	for name, tell := range map[string]func(*testing.T, *quotaService){
		"Of":          func(t *testing.T, s *quotaService) { assert.EqualValues(t, 1, s.used(t)) },
		"Close":       func(t *testing.T, s *quotaService) { require.NoError(t, s.Close(t.Context())) },
		"in a minute": func(*testing.T, *quotaService) { time.Sleep(time.Minute + time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newQuotaService(t, soft, ok)
				s.get()
				tell(t, s)
				assert.Equal(t, admit.QuotaBalance{Used: 1}, s.balance(t))
			})
			synctest.Test(t, func(t *testing.T) {
				s := newQuotaService(t, monthly(100), ok, func(c *admit.QuotasConfig) { c.StoreDown = admit.AdmitAll })
				s.store.fail(errors.New("away"))
				s.get()
				s.store.fail(nil)
				tell(t, s)
				assert.EqualValues(t, 1, s.balance(t).Used)
			})
		})
	}
}

func TestQuotasCloseGivesAllBack(t *testing.T) {
	spend := func(t *testing.T) *quotaService {
		s := newQuotaService(t, monthly(10_000), ok)
		for range 1000 {
			s.get()
		}
		synctest.Wait()
		require.Positive(t, s.balance(t).Held)
		return s
	}
	closed := func(t *testing.T, s *quotaService, used int64) {
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, admit.QuotaBalance{Used: used}, s.balance(t))
		calls := s.store.calls
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, calls, s.store.calls, "there is nothing to say")
	}
	t.Run("all was told", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := spend(t)
			assert.EqualValues(t, 1000, s.used(t))
			closed(t, s, 1000)
		})
	})
	t.Run("an answer was lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newQuotaService(t, monthly(10), ok, func(c *admit.QuotasConfig) { c.StoreDown = admit.RefuseAll })
			s.store.lose(errors.New("the connection broke after COMMIT"))
			require.Equal(t, http.StatusServiceUnavailable, s.get().Code)
			assert.EqualValues(t, 1, s.balance(t).Held)
			s.store.lose(nil)
			closed(t, s, 0)
		})
	})
	t.Run("nobody waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := spend(t)
			over, cancel := context.WithCancel(t.Context())
			cancel()
			err := s.Close(over)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorContains(t, err, "the usage of up to 1 account could not")
			for range 200 { // more than the share
				require.Equal(t, http.StatusOK, s.get().Code)
			}
			closed(t, s, 1200)
		})
	})
}

// A notice comes once: a process that ends does not take it along, unless who is told takes
// longer than there is.
func TestQuotasCloseWaitsForNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []int
		s := newQuotaService(t, monthly(1000), ok, func(c *admit.QuotasConfig) {
			c.Notify = func(n admit.QuotaNotice) {
				time.Sleep(time.Second)
				told = append(told, n.Percent)
				panic("as asked for") // is logged
			}
		})
		for range 800 {
			s.get()
		}
		assert.Empty(t, told)
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, []int{80}, told)

		for range 200 {
			s.get()
		}
		bounded, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		began := time.Now()
		require.NoError(t, s.Close(bounded))
		assert.Equal(t, time.Second/2, time.Since(began))
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, []int{80, 100}, told)
	})
}

// A process may have spent what it holds by the time it hears of another limit, and does not
// hear of it when the answer is lost: the store must not give that to others.
func TestQuotaClaimKeepsWhatItHolds(t *testing.T) {
	var count admit.QuotaCount
	var share admit.QuotaShare
	claim := func(seq, used, want, limit int64) (held int64) {
		b, _ := admit.QuotaClaim{Process: "p", Seq: seq, Used: used, Want: want, Limit: limit}.Settle(&count, &share)
		assert.Equal(t, b.MyHeld, count.Held)
		return b.MyHeld
	}
	assert.EqualValues(t, 10, claim(1, 0, 10, 100))
	assert.EqualValues(t, 10, claim(2, 0, 10, 5), "what it holds")
	assert.EqualValues(t, 10, claim(3, 0, 20, 5), "and no more")
	assert.EqualValues(t, 7, claim(4, 3, 20, 5), "but for what it has spent")
	assert.EqualValues(t, 2, claim(5, 3, 2, 5), "or does not want")
	assert.EqualValues(t, 0, claim(6, 5, 2, 5))
	assert.EqualValues(t, 1, claim(7, 5, 2, 6))
}

func mustPlans(t testing.TB, plans ...admit.Plan) *admit.Plans {
	p, err := admit.NewPlans(plans...)
	require.NoError(t, err)
	return p
}

func TestQuotasGiveBackWhatNobodySpends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(10_000), ok)
		for range 1000 {
			s.get()
		}
		balance := func() admit.QuotaBalance {
			b, err := s.store.Settle(t.Context(), []admit.QuotaClaim{{Account: "k", Quota: "month", Period: "2000-01-01/P1M"}})
			require.NoError(t, err)
			return b[0]
		}
		synctest.Wait()
		assert.Positive(t, balance().Held)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		assert.Equal(t, admit.QuotaBalance{Used: 1000}, balance())
		calls := s.store.calls
		time.Sleep(time.Hour)
		assert.Equal(t, calls+0, s.store.calls, "nobody comes, and nobody asks")

		for range 100 {
			s.get()
		}
		require.NoError(t, s.Close(t.Context()))
		assert.Equal(t, admit.QuotaBalance{Used: 1100}, balance())
	})
}

func TestQuotasExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(10_000), ok)
		sent := map[string]admit.UsageRecord{}
		export := func(fails error) error {
			return s.Export(t.Context(), func(_ context.Context, records []admit.UsageRecord) error {
				for _, r := range records {
					if old, again := sent[r.ID]; again {
						assert.Equal(t, old, r)
					}
					sent[r.ID] = r
				}
				return fails
			})
		}
		for i := range 200 {
			s.get(fmt.Sprintf("Owner: %d", i%3))
			time.Sleep(10 * time.Second)
			if i%7 == 0 {
				failing := errors.New("the sink is away")
				if err := export(failing); err != nil {
					assert.ErrorIs(t, err, failing)
				}
			}
		}
		require.NoError(t, s.Close(t.Context()))
		time.Sleep(20 * time.Minute)
		require.NoError(t, export(nil))
		sum := int64(0)
		for _, r := range sent {
			sum += r.Requests
		}
		assert.EqualValues(t, 200, sum)
	})
}

// A quota that becomes smaller than what has been used holds at once, whatever was taken ahead.
func TestQuotasThatBecomeSmaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(100_000), ok)
		for range 2000 {
			require.Equal(t, http.StatusOK, s.get().Code)
		}
		for range 2000 {
			require.Equal(t, http.StatusTooManyRequests, s.get("Quota: 2000").Code)
		}
		assert.Equal(t, http.StatusOK, s.get("Quota: 2001").Code)
		assert.Equal(t, http.StatusTooManyRequests, s.get("Quota: 2001").Code)
		assert.Equal(t, http.StatusOK, s.get().Code)
		synctest.Wait()
		assert.Less(t, s.store.calls, 100)
	})
}

// The keys of an account should have one billing day. If they have not, the account still gets no
// more than it has bought.
func TestQuotasOfAnAccountWithSeveralBillingDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(100), ok, func(c *admit.QuotasConfig) {
			c.Anchor = func(k *admit.Key) time.Time {
				hour, _ := strconv.Atoi(k.Meta["hour"])
				return time.Date(1999, 1, 15, hour, 0, 0, 0, time.UTC)
			}
		})
		admitted := 0
		for i := range 300 {
			if s.get(fmt.Sprintf("Hour: %d", i%24)).Code == http.StatusOK {
				admitted++
			}
			if i == 50 {
				time.Sleep(5 * time.Minute)
			}
		}
		assert.Equal(t, 100, admitted)
		assert.EqualValues(t, 100, s.used(t))
		time.Sleep(14*24*time.Hour + 12*time.Hour)
		assert.Equal(t, http.StatusOK, s.get("Hour: 11").Code, "a new period has begun")
		assert.Equal(t, http.StatusTooManyRequests, s.get("Hour: 13").Code, "none has")
	})
}

func TestQuotasUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuotaService(t, monthly(10), ok)
		s.get()
		w := httptest.NewRecorder()
		withQuotaKey(s.Usage()).ServeHTTP(w, get("/"))
		assert.JSONEq(t, `{"result":"success","data":{"quotas":[{"name":"month","limit":10,"used":1,"remaining":9,"resets_at":"2000-02-01T00:00:00Z"}]}}`, w.Body.String())
		assert.True(t, json.Valid(w.Body.Bytes()))
	})
}

// All that is spent at once, by several processes, is what was sold.
func TestQuotasOfSeveralProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := admit.NewMemoryQuotaStore()
		plan := monthly(5000)
		var all []http.Handler
		for range 8 {
			q, err := admit.NewQuotas(admit.QuotasConfig{Plans: mustPlans(t, plan), Store: store})
			require.NoError(t, err)
			all = append(all, withQuotaKey(q.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Millisecond) }))))
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		admitted := 0
		for i := range 64 {
			wg.Go(func() {
				for range 150 {
					w := httptest.NewRecorder()
					all[i%8].ServeHTTP(w, get("/"))
					if w.Code == http.StatusOK {
						mu.Lock()
						admitted++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		assert.LessOrEqual(t, admitted, 5000)
		assert.Greater(t, admitted, 4900)
	})
}
