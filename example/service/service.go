// Package service is the API of the example, without the process that it runs in.
package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admitprom"
	"github.com/admit-go/admit/contract"
)

// Config is what depends on the environment of the service.
type Config struct {
	Keys       admit.KeyStore
	Limits     admit.LimitStore // nil: in memory
	QuotaStore admit.QuotaStore // nil: in memory, also if Limits are in Redis
	Replicas   int              // number of replicas that share Limits and QuotaStore
	Logger     *slog.Logger
	Metrics    *admitprom.Metrics // nil: none
}

// Service is the handler of the whole API.
type Service struct {
	http.Handler
	Contract *contract.API // what it publishes
	Quotas   *admit.Quotas // close after Server.Shutdown
}

// Plans returns the plans of callers.
func Plans() (*admit.Plans, error) {
	return admit.NewPlans(
		admit.Plan{
			Name: "free", Limits: []admit.Limit{admit.PerSecond(5), admit.PerMinute(100)},
			Quotas: []admit.Quota{{Requests: 10_000, Every: admit.Month}},
		},
		admit.Plan{
			Name: "pro", Includes: "free", UpgradeURL: "https://example.com/plans/pro",
			Limits: []admit.Limit{admit.PerSecond(50), admit.PerMinute(5000)},
			Quotas: []admit.Quota{{Requests: 1_000_000, Every: admit.Month, Soft: true}}, // more is billed
		},
	)
}

// NewServer returns a server with the timeouts that admit cannot set, since they apply before a
// handler runs or after it has returned: for slow headers, bodies that no handler reads, and idle
// connections.
func NewServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       40 * time.Second, // longer than the slowest order may take
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

// New returns the whole API. Streams end when ctx is done.
func New(ctx context.Context, c Config) (*Service, error) {
	auth, err := admit.NewAuth(admit.AuthConfig{
		Store:          c.Keys,
		Realm:          "market data",
		MintedPrefixes: []string{"demo_free", "demo_pro", "demo_trader"},
	})
	if err != nil {
		return nil, err
	}
	plans, err := Plans()
	if err != nil {
		return nil, err
	}
	limits := admit.LimiterConfig{
		Name:     "market-data",
		Plans:    plans,
		Limits:   []admit.Limit{admit.PerSecond(1)}, // for keys without a plan
		Store:    c.Limits,
		Replicas: c.Replicas,
	}
	sold := admit.QuotasConfig{Plans: plans, Store: c.QuotaStore, Replicas: c.Replicas}
	if sold.Store == nil {
		sold.Store = admit.NewMemoryQuotaStore()
	}
	if c.Metrics != nil {
		limits.Observe, sold.Notify = c.Metrics.ObserveLimit, c.Metrics.NotifyQuota
	}
	limiter, err := admit.NewLimiter(limits)
	if err != nil {
		return nil, err
	}
	quotas, err := admit.NewQuotas(sold)
	if err != nil {
		return nil, err
	}

	shedder, err := admit.NewShedder(admit.ShedderConfig{Max: 64, Plans: plans}) // admits pro before free
	if err != nil {
		return nil, err
	}

	// Each route has one of these, or a changed copy.
	keyed := admit.Policy{
		Methods: []string{"GET"},
		Auth:    auth,
		Plans:   plans,
		Limiter: limiter,
		Quotas:  quotas,
		Shedder: shedder,
		Timeout: time.Second, // until the first byte; a stream may take longer
	}
	usage := keyed
	usage.Quotas = nil // looking does not use up the quota
	prices := keyed
	prices.Accept = []string{"application/json", "text/csv"}
	history := keyed
	history.AtLeast = "pro"
	ordering := keyed
	ordering.Methods = []string{"POST"}
	ordering.Scopes = []string{"orders:write"}
	ordering.ContentType = []string{"application/json"}
	ordering.MaxBody = 64 << 10
	ordering.BodyTimeout = admit.BodyTimeout{Grace: 5 * time.Second, Max: 30 * time.Second, MinRate: 1 << 10}
	ordering.Timeout = 35 * time.Second // an order may wait for its body

	outer := admit.Policy{Errors: &admit.ErrorWriter{Logger: c.Logger}, WriteStall: 10 * time.Second}
	api, err := contract.New(contract.Info{
		Title: "Market data", Version: "1.0",
		Description: "Quotes of two pairs, their history, and orders. It is the example of admit: nothing is bought or sold.",
	}, outer)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", api.Page())
	api.Handle(mux, "/healthz", admit.Policy{Methods: []string{"GET"}}, admit.HandlerFunc(health))
	api.Handle(mux, "/v1/usage", usage, quotas.Usage())
	api.Handle(mux, "/v1/prices/{pair}", prices, admit.HandlerFunc(getPrice), errNoPair)
	api.Handle(mux, "/v1/history/{pair}", history, admit.HandlerFunc(getHistory), errNoPair)
	api.Handle(mux, "/v1/orders", ordering, admit.HandlerFunc(new(orderBook).create), append(contract.Decodes(), errInvalidOrder, errRepeated)...)
	api.Handle(mux, "/v1/slow", keyed, admit.HandlerFunc(slow), errBadDuration)
	api.Handle(mux, "/v1/panic", keyed, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("as asked for") }))
	api.Handle(mux, "/v1/upstream", keyed, upstream(), append(contract.Proxies(), errBadUpstream)...)
	api.Handle(mux, "/v1/stream", keyed, admit.HandlerFunc(streamer(ctx)))
	s := &Service{Handler: api.Wrap(outer.Wrap(admit.Mux(mux))), Contract: api, Quotas: quotas}
	if c.Metrics != nil {
		s.Handler = c.Metrics.Wrap(s.Handler)
		err = watch(c.Metrics, shedder, limiter, quotas, c.Keys, c.Limits)
	}
	return s, err
}

// watch exports the Measures of each part that has them, which not every store does.
func watch(m *admitprom.Metrics, parts ...any) error {
	var all []interface{ Measures() []admit.Measure }
	for _, part := range parts {
		if part, ok := part.(interface{ Measures() []admit.Measure }); ok {
			all = append(all, part)
		}
	}
	return m.Watch("api", all...)
}

func health(w http.ResponseWriter, r *http.Request) error {
	return admit.Success(w, r, http.StatusOK, map[string]string{"status": "up"})
}

// price is a made-up quote.
type price struct {
	Pair string    `json:"pair"`
	Bid  string    `json:"bid"`
	Ask  string    `json:"ask"`
	At   time.Time `json:"at"`
}

var quotes = map[string]price{
	"btc-usd": {Pair: "btc-usd", Bid: "64250.10", Ask: "64251.40"},
	"eth-usd": {Pair: "eth-usd", Bid: "3120.55", Ask: "3120.95"},
}

var errNoPair = admit.NewError(http.StatusNotFound, "There is no such pair; there are btc-usd and eth-usd.")

func quote(pair string, at time.Time) (price, error) {
	q, known := quotes[pair]
	if !known {
		return price{}, errNoPair
	}
	q.At = at.UTC().Truncate(time.Second)
	return q, nil
}

func getPrice(w http.ResponseWriter, r *http.Request) error {
	q, err := quote(r.PathValue("pair"), time.Now())
	if err != nil {
		return err
	}
	if admit.MediaTypeFrom(r.Context()) == "text/csv" {
		w.Header().Set("Content-Type", "text/csv; charset=utf-8; header=present")
		_, err = fmt.Fprintf(w, "pair,bid,ask,at\r\n%s,%s,%s,%s\r\n", q.Pair, q.Bid, q.Ask, q.At.Format(time.RFC3339))
		return err
	}
	return admit.Success(w, r, http.StatusOK, q)
}

// maxSlow bounds the duration that a request to slow may have.
const maxSlow = 10 * time.Second

var errBadDuration = admit.NewError(http.StatusBadRequest, "The parameter d must be a duration of at most 10s, such as 2s.")

// slow responds after the duration in the query.
func slow(w http.ResponseWriter, r *http.Request) error {
	d, err := time.ParseDuration(r.URL.Query().Get("d"))
	if err != nil || d < 0 || d > maxSlow {
		return errBadDuration
	}
	select {
	case <-time.After(d):
		return admit.Success(w, r, http.StatusOK, map[string]string{"slept": d.String()})
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

func getHistory(w http.ResponseWriter, r *http.Request) error {
	day := 24 * time.Hour
	var days []price
	for at := time.Now().Truncate(day).Add(-6 * day); !at.After(time.Now()); at = at.Add(day) {
		q, err := quote(r.PathValue("pair"), at)
		if err != nil {
			return err
		}
		days = append(days, q)
	}
	return admit.Success(w, r, http.StatusOK, days)
}

// streamer sends a quote every second until the client leaves or stop is done.
func streamer(stop context.Context) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		controller := http.NewResponseController(w)
		ticks := time.NewTicker(time.Second)
		defer ticks.Stop()
		for at := time.Now(); ; {
			q, err := quote("btc-usd", at)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "event: price\ndata: {\"bid\":%q,\"ask\":%q,\"at\":%q}\n\n", q.Bid, q.Ask, q.At.Format(time.RFC3339)); err != nil {
				return err
			}
			if err := controller.Flush(); err != nil {
				return err
			}
			admit.ReleasePlace(r) // from now on it mostly waits
			select {
			case <-r.Context().Done():
				return nil
			case <-stop.Done():
				return nil
			case at = <-ticks.C:
			}
		}
	}
}

var errBadUpstream = admit.NewError(http.StatusBadRequest, "The parameter as must be refused or slow.")

// upstream is a reverse proxy to an upstream that fails as the query says.
func upstream() http.Handler {
	targets := map[string]*url.URL{
		"refused": {Scheme: "http", Host: "127.0.0.1:1"}, // a port without a listener
		"slow":    {Scheme: "http", Host: "silent"},
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "silent:80" {
				return silent(), nil
			}
			return (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext(ctx, network, addr)
		},
		ResponseHeaderTimeout: 500 * time.Millisecond,
		DisableKeepAlives:     true,
	}
	return admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		target, known := targets[r.URL.Query().Get("as")]
		if !known {
			return errBadUpstream
		}
		proxy := &httputil.ReverseProxy{
			Rewrite:      func(pr *httputil.ProxyRequest) { pr.SetURL(target) },
			Transport:    transport,
			ErrorHandler: admit.ProxyError,
		}
		proxy.ServeHTTP(w, r)
		return nil
	})
}

// silent returns a connection inside this process to a server that never responds.
func silent() net.Conn {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		_, _ = io.Copy(io.Discard, server) // until the client closes
	}()
	return client
}
