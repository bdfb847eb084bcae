package migrating

import (
	"net/http"
	"sync"
	"time"

	"github.com/didip/tollbooth/v7"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/httprate"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/middleware/stdlib"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"
)

// Httprate limits a router of chi, as it was.
func Httprate(item http.HandlerFunc) http.Handler {
	r := chi.NewRouter()
	r.Use(chimiddleware.ClientIPFromRemoteAddr)
	r.Use(httprate.LimitBy(60, time.Minute, func(r *http.Request) (string, error) {
		return httprate.CanonicalizeIP(chimiddleware.GetClientIP(r.Context())), nil
	}))
	r.Get("/items/{id}", item)
	return r
}

// Tollbooth limits a handler, as it was.
func Tollbooth(item http.HandlerFunc) http.Handler {
	lmt := tollbooth.NewLimiter(1, nil).SetBurst(60)
	return tollbooth.LimitHandler(lmt, item)
}

// Echo checks keys and limits, as it was.
func Echo(item echo.HandlerFunc) http.Handler {
	e := echo.New()
	e.Use(middleware.KeyAuth(func(key string, _ echo.Context) (bool, error) { return key == "secret", nil }))
	e.Use(middleware.RateLimiter(middleware.NewRateLimiterMemoryStoreWithConfig(
		middleware.RateLimiterMemoryStoreConfig{Rate: 1, Burst: 60})))
	e.GET("/items/:id", item)
	return e
}

// Ulule limits a handler, as it was.
func Ulule(item http.HandlerFunc) http.Handler {
	perMinute := limiter.Rate{Period: time.Minute, Limit: 60}
	return stdlib.NewMiddleware(limiter.New(memory.NewStore(), perMinute)).Handler(item)
}

// Throttled limits a handler, as it was.
func Throttled(item http.HandlerFunc) (http.Handler, error) {
	store, err := memstore.NewCtx(65536)
	if err != nil {
		return nil, err
	}
	limiter, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerMin(60), MaxBurst: 59})
	if err != nil {
		return nil, err
	}
	byAddress := throttled.HTTPRateLimiterCtx{RateLimiter: limiter, VaryBy: &throttled.VaryBy{RemoteAddr: true}}
	return byAddress.RateLimit(item), nil
}

// ByHand checks one key and limits by address, as it was.
func ByHand(key string, item http.HandlerFunc) http.Handler {
	var mu sync.Mutex
	limits := map[string]*rate.Limiter{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != key {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		mu.Lock()
		limit := limits[r.RemoteAddr]
		if limit == nil {
			limit = rate.NewLimiter(1, 60)
			limits[r.RemoteAddr] = limit
		}
		mu.Unlock()
		if !limit.Allow() {
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		item(w, r)
	})
}
