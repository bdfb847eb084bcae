// Package client is the other half of the contract: a transport that does with the refusals
// and failures of a service behind admit what they ask for.
//
// It stands on hashicorp/go-retryablehttp, which drains and closes the answers of failed
// attempts, so that their connections are used again, and may hand any answer to the caller
// as it came. The transport of failsafe-go leaves those answers open, ignores a Retry-After
// that is a date, and with its jitter may come before Retry-After. By itself neither gives up
// on a Retry-After that is too long, tells a POST from a GET, or counts by status: that is
// added here.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// Transport sends a request again where that helps, and cannot do harm:
//
//   - 429: after its Retry-After, as often as Patience lasts. The service has refused the
//     request before its handler ran, so that this is for every method. A 429 without
//     Retry-After is never let in.
//   - 500, 502, 503, 504, and an attempt without an answer: once, after Retry-After or else
//     100 ms. The handler may have run, and done its work. So this is for the methods that are
//     idempotent (RFC 9110 §9.2.2, RFC 10008) and for requests with an Idempotency-Key, which
//     promises that the service does the work once. Others are sent again for a 503 with the
//     code maintenance or store_unavailable alone, which come before the handler; with
//     handler_timeout it was at work.
//   - All others: never. To send a bad request again, or a body that was too slow or too
//     large, changes nothing.
//
// An answer that is not retried goes to the caller as it came, at once: also one whose
// Retry-After is longer than what is left of Patience or of the time of the context, as that
// of a quota for a month is. A body is sent again if the request has GetBody, which
// http.NewRequest sets for readers in memory; else there is one attempt.
//
// Each wait is longer by a random part: up to half of it, or up to 200 ms if that is more. So
// clients that were refused together do not come back together. A handler that itself answers
// 429, maintenance or store_unavailable has to do so before its work. A Transport is safe for
// concurrent use.
type Transport struct {
	Next     http.RoundTripper // sends one attempt; nil: http.DefaultTransport
	Patience time.Duration     // for all waits of a request together; 0: 10 s
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.Next
	if next == nil {
		next = http.DefaultTransport
	}
	c := &call{request: r, left: cmp.Or(t.Patience, 10*time.Second)}
	retrying := retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     struct{ http.RoundTripper }{next}, // its idle connections are not for the library to close
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMax:     math.MaxInt, // CheckRetry ends it
		CheckRetry:   c.again,
		Backoff:      func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return c.wait },
		PrepareRetry: rewind,
	}
	res, err := retrying.Do(&retryablehttp.Request{Request: r})
	if err == nil {
		return res, nil
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // the client around says the rest
	}
	return nil, err
}

// call is a request on its way, attempt by attempt.
type call struct {
	request *http.Request
	left    time.Duration // of the patience
	failed  bool          // an attempt has, other than with 429
	wait    time.Duration // before the next attempt
}

var (
	idempotent = []string{"", "GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PUT", "DELETE"}
	momentary  = []int{0, 500, 502, 503, 504} // 0: no answer
)

// again decides about an attempt, and how long to wait before the next.
func (c *call) again(ctx context.Context, res *http.Response, _ error) (bool, error) {
	status, header := 0, ""
	if res != nil {
		status, header = res.StatusCode, res.Header.Get("Retry-After")
	}
	wait, told := retryAfter(header)
	r := c.request
	switch {
	case r.GetBody == nil && r.Body != nil && r.Body != http.NoBody:
		return false, nil
	case status == http.StatusTooManyRequests && told:
		wait = max(wait, time.Second)
	case !c.failed && slices.Contains(momentary, status) &&
		(slices.Contains(idempotent, r.Method) || r.Header.Get("Idempotency-Key") != "" || neverIn(res)):
		c.failed = true
		wait = max(wait, 100*time.Millisecond)
	default:
		return false, nil
	}
	left := c.left
	if deadline, set := ctx.Deadline(); set {
		left = min(left, time.Until(deadline))
	}
	if wait > left {
		return false, nil
	}
	c.wait = wait + rand.N(min(max(wait/2, 200*time.Millisecond), (left-wait)/2)+1)
	c.left -= c.wait
	return true, nil
}

// neverIn reports whether an answer says that no handler has seen the request.
func neverIn(res *http.Response) bool {
	if res == nil || res.StatusCode != http.StatusServiceUnavailable {
		return false
	}
	start, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // an error comes again
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), res.Body), res.Body}
	var body struct{ Code string }
	return json.Unmarshal(start, &body) == nil && (body.Code == "maintenance" || body.Code == "store_unavailable")
}

// retryAfter reads both forms of the header (RFC 9110 §10.2.3). Seconds that 32 bits do not
// hold are as many as they do.
func retryAfter(header string) (wait time.Duration, told bool) {
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(header)
	return max(time.Until(at), 0), err == nil
}

// rewind gives the request that is sent again a body of its own.
func rewind(r *http.Request) (err error) {
	if r.GetBody != nil {
		r.Body, err = r.GetBody()
	}
	return err
}
