// Package streams has the code of docs/streams.md.
package streams

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/admit-go/admit"
)

// feed sends prices to whoever listens.
type feed struct {
	prices    *broker
	streams   *admit.Limiter  // how many of them a caller may have
	messages  *admit.Limiter  // how often a caller may send one
	heartbeat time.Duration   // 15 * time.Second
	closing   context.Context // ends when the server shuts down
	sockets   sync.WaitGroup
}

func newFeed(closing context.Context, heartbeat time.Duration) (*feed, error) {
	// A stream takes one of five, and gives it back when it ends.
	streams, err := forEachKey(admit.Limit{Name: "streams", Requests: 1, Per: 24 * time.Hour, Burst: 5})
	if err != nil {
		return nil, err
	}
	messages, err := forEachKey(admit.Limit{Name: "messages", Requests: 60, Per: time.Minute, Burst: 10})
	if err != nil {
		return nil, err
	}
	return &feed{prices: new(broker), streams: streams, messages: messages, heartbeat: heartbeat, closing: closing}, nil
}

// forEachKey has one limit for all callers, also for a key that has Limits of its own: those are
// for requests.
func forEachKey(limit admit.Limit) (*admit.Limiter, error) {
	limits := []admit.Limit{limit}
	return admit.NewLimiter(admit.LimiterConfig{
		Limits:    limits,
		LimitsFor: func(*http.Request) []admit.Limit { return limits },
	})
}

func (f *feed) handler(auth *admit.Auth, limiter *admit.Limiter, shedder *admit.Shedder) (http.Handler, error) {
	inFlight, err := admit.NewInFlight(admit.InFlightConfig{Max: 10_000, PerAddress: 100})
	if err != nil {
		return nil, err
	}
	stream := admit.Policy{
		Methods:    []string{"GET"},
		Auth:       auth,
		Limiter:    limiter,
		Shedder:    shedder,
		Timeout:    5 * time.Second,  // to the first byte
		WriteStall: 10 * time.Second, // a client that reads nothing for so long is cut off
	}
	mux := http.NewServeMux()
	mux.Handle("/events", stream.Wrap(admit.HandlerFunc(f.events)))
	mux.Handle("/poll", stream.Wrap(admit.HandlerFunc(f.poll)))
	mux.Handle("/socket", stream.Wrap(admit.Intercept(admit.HandlerFunc(f.socket))))
	return admit.Policy{InFlight: inFlight}.Wrap(admit.Mux(mux)), nil
}

var errStreams = &admit.Error{
	Status: http.StatusTooManyRequests, Code: "too_many_streams", Message: "There are five streams for each key.",
}

// open counts a stream of the caller until it is over.
func (f *feed) open(r *http.Request) (over func(), err error) {
	switch d, err := f.streams.Take(r, 1); {
	case err != nil:
		return nil, err
	case !d.Allowed:
		return nil, errStreams
	}
	return func() {
		r := r.WithContext(context.WithoutCancel(r.Context())) // the client may be gone
		_, _ = f.streams.Take(r, -1)
	}, nil
}

// events sends each price as a server-sent event.
func (f *feed) events(w http.ResponseWriter, r *http.Request) error {
	over, err := f.open(r)
	if err != nil {
		return err
	}
	defer over()
	prices, cancel := f.prices.subscribe()
	defer cancel()
	admit.ReleasePlace(r) // from here on it mostly waits
	heartbeat := time.NewTicker(f.heartbeat)
	defer heartbeat.Stop()

	w.Header().Set("Content-Type", "text/event-stream")
	for text := ": welcome\n\n"; ; {
		if _, err := fmt.Fprint(w, text); err != nil {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select {
		case price := <-prices:
			text = fmt.Sprintf("id: %d\ndata: {\"price\":%q}\n\n", price.id, price.text)
		case <-heartbeat.C:
			text = ": heartbeat\n\n"
		case <-r.Context().Done():
			return nil
		case <-f.closing.Done():
			return nil
		}
	}
}

// poll answers when there is news, or after most of a minute.
func (f *feed) poll(w http.ResponseWriter, r *http.Request) error {
	prices, cancel := f.prices.subscribe()
	defer cancel()
	if !admit.StopTimeout(r.Context()) {
		return nil // too late: the client has got its 503
	}
	admit.ReleasePlace(r)
	wait := time.NewTimer(50 * time.Second)
	defer wait.Stop()
	select {
	case price := <-prices:
		return admit.Success(w, r, http.StatusOK, price.text)
	case <-wait.C:
	case <-r.Context().Done():
		return r.Context().Err()
	case <-f.closing.Done():
	}
	return admit.Success(w, r, http.StatusNoContent, nil)
}

// socket sends back each message of a WebSocket.
func (f *feed) socket(w http.ResponseWriter, r *http.Request) error {
	over, err := f.open(r)
	if err != nil {
		return err
	}
	defer over()
	f.sockets.Add(1)
	defer f.sockets.Done()
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{"app.example.com"}})
	if err != nil {
		return nil // Accept has answered, by http.Error
	}
	defer c.CloseNow()
	defer context.AfterFunc(f.closing, func() { _ = c.Close(websocket.StatusGoingAway, "the service restarts") })()
	c.SetReadLimit(32 << 10)
	for {
		_, text, err := c.Read(r.Context())
		if err != nil {
			return nil // the client has left, or the service restarts
		}
		d, err := f.messages.Take(r, 1)
		if err != nil {
			_ = c.Close(websocket.StatusInternalError, "")
			return nil
		}
		if !d.Allowed {
			_ = c.Close(websocket.StatusTryAgainLater, fmt.Sprintf("too many messages; wait %v", d.RetryAfter.Round(time.Second)))
			return nil
		}
		if err := answer(r.Context(), c, text); err != nil {
			return nil
		}
	}
}

// answer gives a client ten seconds to take a message.
func answer(ctx context.Context, c *websocket.Conn, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.Write(ctx, websocket.MessageText, text)
}

// serve serves until ctx ends. Then it ends all streams: stop ends feed.closing.
func serve(ctx context.Context, server *http.Server, listener net.Listener, f *feed, stop func()) error {
	server.RegisterOnShutdown(stop)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	within, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := server.Shutdown(within)
	f.sockets.Wait() // for which Shutdown does not wait
	return err
}
