package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit"
	example "github.com/admit-go/admit/example/service"
	"github.com/admit-go/admit/redislimit"
)

// demo is the service of the example, and what its replicas note of their limit stores.
type demo struct {
	mu    sync.Mutex
	took  []time.Duration   // since the last row
	used  map[int]time.Time // when each replica has last used Redis
	lost  map[string]int    // decisions of each caller that failed although Redis was there
	quiet bool              // Redis is not there, or has just come back
}

func newDemo() *demo {
	return &demo{used: make(map[int]time.Time), lost: make(map[string]int)}
}

// runDemo breaks Redis under the service of the example, with three callers who send more than
// their plans allow.
func runDemo(ctx context.Context, o options, stdout io.Writer) error {
	d := newDemo()
	f, err := startFleet(ctx, o.replicas, d,
		caller{name: "free", plan: "free", rate: 200}, caller{name: "pro", plan: "pro", rate: 150}, caller{name: "trader", plan: "pro", rate: 150})
	if err != nil {
		return err
	}
	defer f.close()
	fmt.Fprintf(stdout, "%d replicas, limits in Redis, keys in %s; free: 5 a second, pro and trader: 50 a second each\n", o.replicas, f.database)
	log, err := f.exercise(ctx, o, d, stdout)
	if err != nil {
		return err
	}
	if o.svg != "" {
		if err := os.WriteFile(o.svg, log.draw(), 0o644); err != nil {
			return err
		}
	}
	return log.verdict(stdout)
}

func (d *demo) replica(ctx context.Context, f *fleet, i int, keys admit.KeyStore) (http.Handler, error) {
	store, err := f.newLimitStore()
	if err != nil {
		return nil, err
	}
	return example.New(ctx, example.Config{Keys: keys, Limits: &limitStore{store, i, d}, Replicas: f.size, Logger: quiet})
}

// limitStore is that of a replica, which notes how long its decisions take.
type limitStore struct {
	*redislimit.Store
	replica int
	demo    *demo
}

func (s *limitStore) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	began := time.Now()
	d, err := s.Store.Take(ctx, key, cost, limits)
	took := time.Since(began)
	s.demo.mu.Lock()
	defer s.demo.mu.Unlock()
	s.demo.took = append(s.demo.took, took)
	if err == nil {
		s.demo.used[s.replica] = time.Now()
	} else if !s.demo.quiet {
		s.demo.lost[key[strings.LastIndexByte(key, ':')+1:]]++
	}
	return d, err
}

// excuse says whether it is known that Redis fails.
func (d *demo) excuse(known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.quiet = known
}

func (d *demo) lostBy(caller string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost[caller]
}

// load sends requests of all callers to all replicas in turn, until ctx ends.
func (f *fleet) load(ctx context.Context, log *record) *sync.WaitGroup {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 10 * time.Second}
	const senders = 5 // of a caller
	var turn atomic.Int64
	var sending sync.WaitGroup
	for i, c := range f.callers {
		for range senders {
			sending.Go(func() {
				ticks := time.NewTicker(time.Second * senders / time.Duration(c.rate))
				defer ticks.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-ticks.C:
					}
					url := f.urls[int(turn.Add(1))%len(f.urls)]
					log.answer(i, status(client, url, c.token))
				}
			})
		}
	}
	return &sending
}

// exercise sends requests until the time is over, and breaks Redis on the way.
func (f *fleet) exercise(ctx context.Context, o options, d *demo, stdout io.Writer) (*record, error) {
	ctx, cancel := context.WithTimeout(ctx, o.lasts)
	defer cancel()
	log := newRecord(f, d)
	sending := f.load(ctx, log)
	defer sending.Wait()

	fmt.Fprintln(stdout, "\n  time     sent  admitted  refused  failed    bound  to Redis   p50 added   p99 added")
	seconds := time.NewTicker(time.Second)
	defer seconds.Stop()
	begin, end := time.After(o.lasts/2), time.After(o.lasts*3/4)
	if o.kill == "" && o.hang == "" {
		begin, end = nil, nil
	}
	for {
		select {
		case <-ctx.Done():
			cancel()
			sending.Wait()
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return nil, errors.New("interrupted")
			}
			log.finish()
			return log, nil
		case <-seconds.C:
			fmt.Fprintln(stdout, log.row())
		case <-begin:
			log.begins()
			if o.kill != "" {
				f.redis.Stop()
			} else if err := f.redis.Hang(); err != nil {
				return nil, err
			}
			fmt.Fprintln(stdout, "         Redis is gone: each replica applies its share of the limits")
		case <-end:
			log.ends()
			restore := f.redis.Resume
			if o.kill != "" {
				restore = f.redis.Start
			}
			if err := restore(); err != nil {
				return nil, err
			}
			fmt.Fprintln(stdout, "         Redis is back")
		}
	}
}
