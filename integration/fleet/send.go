package main

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// senders are how many requests may wait for their answers at a time.
const senders = 128

// send sends requests at an even rate, to all replicas in turn, until ctx ends, whether or not
// those before have been answered. Then it waits for the answers, and returns how many were
// neither 200 nor 429.
func (f *fleet) send(ctx context.Context, c caller) int {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	began, every := time.Now(), time.Second/time.Duration(c.rate)
	var next, failed atomic.Int64
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
				switch status(client, f.urls[int(i)%len(f.urls)], c.token) {
				case http.StatusOK, http.StatusTooManyRequests:
				default:
					failed.Add(1)
				}
			}
		})
	}
	sending.Wait()
	return int(failed.Load())
}
