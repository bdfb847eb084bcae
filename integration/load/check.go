package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// The request that is sent all the time.
const (
	path = "/v1/orders"
	body = `{"pair":"btc-usd","side":"buy","quantity":"1.5","client_id":"o-1"}`
)

var headers = [][2]string{
	{"Authorization", "Bearer " + token(goodKey)},
	{"Accept", "application/json"},
	{"Content-Type", "application/json"},
	{"X-Forwarded-For", "198.51.100.7"},
	{"User-Agent", "load"},
}

func newRequest(url string) *http.Request {
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		panic(err) // the url is ours
	}
	for _, h := range headers {
		r.Header.Set(h[0], h[1])
	}
	return r
}

// cases are what a client can tell of a server from outside, one request each.
var cases = []struct {
	name   string
	change func(*http.Request)
	seen   func(*http.Response) bool
}{
	{"401 without a key", func(r *http.Request) { r.Header.Del("Authorization") }, status(401)},
	{"401 for an unknown key", func(r *http.Request) { setKey(r, keyCount) }, status(401)},
	{"406", func(r *http.Request) { r.Header.Set("Accept", "image/png") }, status(406)},
	{"415", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, status(415)},
	{"limits in headers", func(*http.Request) {}, func(res *http.Response) bool {
		return res.StatusCode == 200 && (res.Header.Get("RateLimit") != "" || res.Header.Get("X-RateLimit-Remaining") != "")
	}},
	{"405", func(r *http.Request) { r.Method = http.MethodPut }, status(405)},
	{"403 without the scope", func(r *http.Request) { setKey(r, scopelessKey) }, status(403)},
	{"402 on a plan below", func(r *http.Request) { setKey(r, freeKey) }, status(402)},
	{"413", func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(make([]byte, maxBody+1))), maxBody+1
	}, status(413)},
	{"request id", func(*http.Request) {}, func(res *http.Response) bool { return res.Header.Get("X-Request-Id") != "" }},
}

func status(want int) func(*http.Response) bool {
	return func(res *http.Response) bool { return res.StatusCode == want }
}

func setKey(r *http.Request, i int) { r.Header.Set("Authorization", "Bearer "+token(i)) }

// What the contestants do. A chain that does less than it says would win by that.
var (
	everything  = caseNames()
	peersDo     = []string{"401 without a key", "401 for an unknown key", "406", "415", "limits in headers"}
	likePeersDo = append(peersDo[:len(peersDo):len(peersDo)], "request id")
)

func caseNames() []string {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

// check sends every case to the server at url, and reports each that it should do and
// does not, or does although it is not said to.
func (c contestant) check(url string) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	res, err := client.Do(newRequest(url))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if want := answerTo([]byte(body)); res.StatusCode != 200 || !bytes.Equal(answer, want) {
		return fmt.Errorf("the answer is %s, %q", res.Status, answer)
	}

	var faults []error
	for _, cs := range cases {
		r := newRequest(url)
		cs.change(r)
		res, err := client.Do(r)
		if err != nil {
			return fmt.Errorf("%s: %w", cs.name, err)
		}
		_ = res.Body.Close()
		if says := slices.Contains(c.does, cs.name); says != cs.seen(res) {
			faults = append(faults, fmt.Errorf("%s: said %t, but the answer is %s", cs.name, says, res.Status))
		}
	}
	return errors.Join(faults...)
}
