package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"runtime"
	"slices"
	"time"
)

// run is a cell that has been measured.
type run struct {
	cell     cell
	arrivals []arrival
	answers  []answer
}

// A wire is how requests come to a handler: it returns how to send one, and how to end.
type wire func(h http.Handler) (send func(context.Context, arrival) int, end func(), err error)

func (c cell) measure(a admission, over wire) (*run, error) {
	runtime.GC() // of what the cell before has left
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := newService(c.workers, a.heedful)
	h, err := a.protect(ctx, c.workers, s)
	if err != nil {
		return nil, err
	}
	send, end, err := over(h)
	if err != nil {
		return nil, err
	}
	defer end()

	begins := time.Duration(0)
	for _, p := range c.phases {
		timer := time.AfterFunc(begins, func() { s.slower.Store(int64(max(1, p.slower))) })
		defer timer.Stop()
		begins += p.lasts
	}
	r := &run{cell: c, arrivals: c.arrivals(1)}
	r.answers = drive(r.arrivals, c.deadline, send, func() { close(s.closed) })
	return r, nil
}

func (a arrival) header() http.Header {
	return http.Header{workHeader: {a.work.String()}, "X-Api-Key": {callers[a.caller].token}}
}

// inProcess calls the handler as net/http would.
func inProcess(h http.Handler) (func(context.Context, arrival) int, func(), error) {
	template, err := http.NewRequest(http.MethodGet, "/", http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	template.RemoteAddr = "127.0.0.1:1"
	return func(ctx context.Context, a arrival) (status int) {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				panic(v)
			}
		}()
		r := template.WithContext(ctx)
		r.Header = a.header()
		w := recorder{header: http.Header{}}
		h.ServeHTTP(&w, r)
		return w.status
	}, func() {}, nil
}

// recorder keeps the status alone.
type recorder struct {
	header http.Header
	status int
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(p), nil
}

// overSockets has a server, and a client that keeps its connections. A client that leaves
// closes the one that it waits on.
func overSockets(h http.Handler) (func(context.Context, arrival) int, func(), error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 10_000}
	client := &http.Client{Transport: transport}
	url := fmt.Sprintf("http://%s/", listener.Addr())
	return func(ctx context.Context, a arrival) int {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
			if err != nil {
				return 0
			}
			r.Header = a.header()
			res, err := client.Do(r)
			if err != nil {
				return 0
			}
			defer res.Body.Close()
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				return 0
			}
			return res.StatusCode
		}, func() {
			transport.CloseIdleConnections()
			_ = server.Close()
		}, nil
}

// tally is what became of some of the requests of a run.
type tally struct {
	sent, good, refused int
	asked, done         time.Duration // work
	took                []time.Duration
	refusals            []time.Duration // how long they took
	late                []time.Duration
	last                time.Duration // when the last came that was not answered in time
}

// inTime reports whether the client got what it asked for.
func (r *run) inTime(i int) bool {
	return r.answers[i].status == http.StatusOK && r.answers[i].took <= r.cell.deadline
}

// tally counts those that came in a time, and that pick chooses.
func (r *run) tally(from, to time.Duration, pick func(arrival) bool) tally {
	var t tally
	for i, a := range r.arrivals {
		if a.at < from || a.at >= to || !pick(a) {
			continue
		}
		t.sent++
		t.asked += a.work
		t.late = append(t.late, r.answers[i].late)
		switch got := r.answers[i]; {
		case r.inTime(i):
			t.good++
			t.done += a.work
			t.took = append(t.took, got.took)
			continue
		case got.status == http.StatusTooManyRequests && got.took <= r.cell.deadline:
			t.refused++
			t.refusals = append(t.refusals, got.took)
		}
		t.last = a.at
	}
	slices.Sort(t.took)
	slices.Sort(t.refusals)
	slices.Sort(t.late)
	return t
}

func all(arrival) bool { return true }

func (r *run) counted(pick func(arrival) bool) tally { return r.tally(r.cell.from, r.cell.to, pick) }

// phase is when a phase begins and ends.
func (c cell) phase(n int) (from, to time.Duration) {
	for _, p := range c.phases[:n] {
		from += p.lasts
	}
	return from, from + c.phases[n].lasts
}

// quantile is that of sorted times, in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[int(q*float64(len(sorted)-1))].Seconds() * 1e3
}

func percent[N int | time.Duration | float64](part, whole N) float64 {
	return 100 * float64(part) / float64(whole)
}

// lateness is how late the requests were that the generator sent last among a hundred.
func (r *run) lateness() float64 { return quantile(r.counted(all).late, 0.99) }
