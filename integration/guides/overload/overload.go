// Package overload is the code of the guide to overload and timeouts.
package overload

import (
	"fmt"
	"net/http"
	"time"

	"github.com/admit-go/admit"
)

// Bounds are what a service has one of, for all of its routes.
type Bounds struct {
	Plans    *admit.Plans
	InFlight *admit.InFlight
	Shedder  *admit.Shedder
}

// NewBounds returns the bounds of a service that can work on 32 requests at once.
func NewBounds() (Bounds, error) {
	plans, err := admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro"})
	if err != nil {
		return Bounds{}, err
	}
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 2000})
	if err != nil {
		return Bounds{}, err
	}
	shedder, err := admit.NewShedder(admit.ShedderConfig{Max: 64, Plans: plans}) // pro goes first
	if err != nil {
		return Bounds{}, err
	}
	return Bounds{plans, inFlight, shedder}, nil
}

// Service puts the bounds around its routes, and the health check outside.
func Service(b Bounds, auth *admit.Auth, report, order http.HandlerFunc) http.Handler {
	keyed := admit.Policy{
		Methods: []string{"GET"},
		Auth:    auth,
		Plans:   b.Plans,
		Shedder: b.Shedder,
		Timeout: 10 * time.Second, // until the first byte of the response
	}
	ordering := keyed
	ordering.Methods = []string{"POST"}
	ordering.MaxBody = 64 << 10

	mux := http.NewServeMux()
	mux.Handle("/reports", keyed.Wrap(report))
	mux.Handle("/orders", ordering.Wrap(order))
	mux.Handle("/news", keyed.Wrap(http.HandlerFunc(news)))
	api := admit.Policy{
		InFlight:    b.InFlight,
		BodyTimeout: admit.BodyTimeout{Grace: 5 * time.Second, Max: 30 * time.Second, MinRate: 1 << 10}, // bounds every body
		WriteStall:  10 * time.Second,
	}.Wrap(admit.Mux(mux))

	outer := http.NewServeMux()
	outer.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	outer.Handle("/", api)
	return outer
}

func news(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "data: hello\n\n")
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	admit.ReleasePlace(r) // from here on it only waits for news
	<-r.Context().Done()
}

// NewServer bounds what happens before a handler runs, and between requests.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       60 * time.Second, // longer than BodyTimeout.Max
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
}
