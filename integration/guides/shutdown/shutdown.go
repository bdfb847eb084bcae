// Package shutdown has the code of docs/shutdown.md.
package shutdown

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/admit-go/admit"
)

// Service is a server and what has to end after it.
type Service struct {
	Server   *http.Server
	Stopping atomic.Bool // the health check fails while it is set

	InFlight *admit.InFlight // around all routes
	Limiter  *admit.Limiter
	Quotas   *admit.Quotas
	Stores   []io.Closer // key stores, key files and databases, in the order of closing

	Drain  time.Duration // from the failing health check to the closed port, such as 5 s
	Finish time.Duration // for requests to finish, such as 20 s
	Settle time.Duration // for limits and quotas to tell their stores, such as 5 s
}

// Serve serves until ctx ends, and then shuts down in order.
func (s *Service) Serve(ctx context.Context, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Server.Serve(listener) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = s.drain()
	}
	settling, cancel := context.WithTimeout(context.Background(), s.Settle)
	defer cancel()
	err = errors.Join(err, s.Limiter.Close(settling), s.Quotas.Close(settling))
	for _, store := range s.Stores {
		err = errors.Join(err, store.Close())
	}
	return err
}

// drain returns when no handler runs any more, or when it has taken too long.
func (s *Service) drain() error {
	s.Stopping.Store(true)
	time.Sleep(s.Drain) // requests still come until the load balancer has seen it
	finishing, cancel := context.WithTimeout(context.Background(), s.Finish)
	defer cancel()
	err := s.Server.Shutdown(finishing) // closes the port, and waits for responses
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were cut: %w", err), s.Server.Close())
	}
	// Shutdown waits neither for a handler that went on after its Timeout nor for a WebSocket.
	for s.InFlight.Stats().Running > 0 && finishing.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// Health answers 503 once the service is about to stop.
func (s *Service) Health(w http.ResponseWriter, _ *http.Request) {
	if s.Stopping.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// Main serves until the process is told to end. A second signal ends it at once.
func Main(s *Service, addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return s.Serve(ctx, listener)
}

// Events is a stream that ends when the server shuts down.
func Events(server *http.Server, ticks <-chan string) http.Handler {
	stopping, stop := context.WithCancel(context.Background())
	server.RegisterOnShutdown(stop)
	return admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if err := http.NewResponseController(w).Flush(); err != nil {
				return err
			}
			select {
			case tick := <-ticks:
				if _, err := fmt.Fprintf(w, "data: %s\n\n", tick); err != nil {
					return err
				}
			case <-stopping.Done():
				return nil
			case <-r.Context().Done():
				return nil
			}
		}
	})
}
