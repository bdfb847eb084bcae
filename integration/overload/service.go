package main

import (
	"net/http"
	"sync/atomic"
	"time"
)

// service answers a request once one of its workers has done the request's work. Workers
// are to it what the connections of a pool are to a service with a database: those who wait
// for one wait in the order in which they came, without a bound, and leave with their
// client. Work that has begun is done to its end.
type service struct {
	workers chan *worker
	slower  atomic.Int64 // times
	heedful bool         // that is, who waits leaves with its client
	closed  chan struct{}
}

func newService(workers int, heedful bool) *service {
	s := &service{workers: make(chan *worker, workers), heedful: heedful, closed: make(chan struct{})}
	s.slower.Store(1)
	for range workers {
		s.workers <- new(worker)
	}
	return s
}

// workHeader says how much work a request is.
const workHeader = "X-Work"

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	work, err := time.ParseDuration(r.Header.Get(workHeader))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	gone := r.Context().Done()
	if !s.heedful {
		gone = nil
	}
	select {
	case at := <-s.workers:
		at.do(work * time.Duration(s.slower.Load()))
		s.workers <- at
		w.WriteHeader(http.StatusOK)
	case <-gone:
	case <-s.closed:
	}
}

// worker does one thing at a time. Its work is to sleep, so that two processors do for any
// number of workers. Timers are late by up to a millisecond: what one request was given too
// much the next is given less, so that the service can do what it is said to, and no less.
type worker struct{ debt time.Duration }

func (w *worker) do(work time.Duration) {
	begin := time.Now()
	rest := max(work-w.debt, 0)
	time.Sleep(rest)
	w.debt += time.Since(begin) - work
}
