package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// senders are how many requests may wait for their answers at a time.
const senders = 128

// send sends requests at an even rate, to all replicas in turn, until ctx ends, whether or not
// those before have been answered. Then it waits for the answers, and returns how many there
// were of each status; 0 is none.
func (f *fleet) send(ctx context.Context, c caller) map[int]int {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	began, every := time.Now(), time.Second/time.Duration(c.rate)
	var next atomic.Int64
	var mu sync.Mutex
	answers := make(map[int]int)
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for {
				i := next.Add(1)
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(began.Add(time.Duration(i) * every))):
				}
				got := status(client, f.urls[int(i)%len(f.urls)], c.token)
				mu.Lock()
				answers[got]++
				mu.Unlock()
			}
		})
	}
	sending.Wait()
	return answers
}

// warm sends requests until each replica has let one in: it knows the key then, and has a
// connection to Redis.
func (f *fleet) warm(ctx context.Context, c caller) error {
	for _, url := range f.urls {
		for last := 0; last != http.StatusOK; last = status(http.DefaultClient, url, c.token) {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("%s has answered %d: %w", url, last, err)
			}
		}
	}
	return nil
}
