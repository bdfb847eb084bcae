package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// faults are what clients do wrong. Each is done by so many at a time, over and over,
// with a random pause, in loads that last for longer than it takes. Keys of their own
// keep the load from using up their limits.
var faults = []struct {
	name         string
	times        int
	pause, takes time.Duration
	run          func(*faulter)
}{
	{"slow header", 2, time.Second, readHeaderTimeout + slack, slowHeader},
	{"slow body", 4, time.Second, bodyGrace + slack, slowBody},
	{"slow body over HTTP/2", 2, time.Second, bodyGrace + slack, slowBody2},
	{"body in pieces", 2, time.Second, 0, pieces},
	{"aborted upload", 2, time.Second, 0, abortedUpload},
	{"aborted upload over HTTP/2", 2, time.Second, 0, abortedUpload2},
	{"half an upload, half closed", 1, time.Second, 0, halfUpload},
	{"half closed", 2, time.Second, 0, halfClosed},
	{"refused upload", 3, time.Second, 0, refusedUpload},
	{"expects 100", 2, time.Second, 0, expects},
	{"answers not read", 1, 5 * time.Second, 3 * time.Second, neverReads},
	{"waits for an upstream", 8, 200 * time.Millisecond, 0, waitsForUpstream},
	{"leaves a slow handler", 2, 200 * time.Millisecond, 0, leaves},
	{"leaves a stream", 3, time.Second, 3 * time.Second, leavesStream},
	{"connections dropped", 1, 2 * time.Second, 0, churn},
	{"garbage", 1, 500 * time.Millisecond, 0, garbage},
	{"key flood", 1, 5 * time.Second, 0, keyFlood},
	{"idle connection", 2, time.Second, idleTimeout + slack, idle},
	{"waits for its turn", 1, time.Second, 0, waitsItsTurn},
}

// faulter does one of them, once.
type faulter struct {
	*soak
	g    *generator
	ctx  context.Context // of the load
	name string
}

// slack is for a machine that is busy.
const slack = 2 * time.Second

// What the service gives a body, as the example sets it, and what admit takes to refuse
// an upload that goes on: see the first and the last in its words.
const (
	bodyGrace   = 5 * time.Second
	refusalTime = 800 * time.Millisecond
)

// order is one that is right.
func (f *faulter) order(more ...outcome) *request {
	q := f.g.request(f.name, "POST", "/v1/orders")
	body := fmt.Sprintf(`{"pair":"eth-usd","side":"buy","quantity":"2","client_id":"%012x"}`, f.g.rng.Uint64()>>16)
	q.header.Set("Content-Type", "application/json")
	q.body, q.right = []byte(body), isData(body)
	f.g.as(q, pick(f.g, f.keys.faulty...))
	q.want = append(more, outcome{429, "rate_limited", true})
	return q
}

func (f *faulter) get(path string, want ...outcome) *request {
	q := f.g.request(f.name, "GET", path)
	f.g.as(q, pick(f.g, f.keys.faulty...))
	q.want = append(want, outcome{429, "rate_limited", true})
	return q
}

// on does something on a new connection, which is closed in the end.
func (f *faulter) on(do func(*wire)) {
	w, err := dial(f.child.addr)
	if err != nil {
		f.tally.violation("no connection", err.Error())
		return
	}
	defer w.Close()
	do(w)
}

// text is that of a request.
func (f *faulter) text(q *request) (head, body []byte) {
	head, body, err := q.text(f.child.addr)
	if err != nil {
		f.tally.violation("the request cannot be written", err.Error())
	}
	return head, body
}

// gone checks that the service closes the connection, and says no more.
func (f *faulter) gone(w *wire, within time.Duration) {
	if said, err := w.rest(within); err != nil || said != "" {
		f.tally.violation(fmt.Sprintf("%s: %v, %q", f.name, err, said), "")
	}
}

// slowHeader stalls in the middle.
func slowHeader(f *faulter) {
	f.on(func(w *wire) {
		head, _ := f.text(f.order())
		at := f.g.rng.IntN(len(head) - 12)
		_, _ = w.Write(head[:at])
		for i := range 10 {
			time.Sleep(50 * time.Millisecond)
			_, _ = w.Write(head[at+i : at+i+1])
		}
		f.ownWords(w, "400 Bad Request", readHeaderTimeout+slack)
	})
}

// slowBody stalls in the middle, or goes on, too slowly.
func slowBody(f *faulter) {
	q := f.order(outcome{408, "request_timeout", true})
	q.body = append(q.body, strings.Repeat(" ", 1000)...)
	drips := f.g.one(2)
	f.on(func(w *wire) {
		head, body := f.text(q)
		_, _ = w.Write(append(head, body[:20]...))
		stop := make(chan struct{})
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 20; drips && i < len(body); i++ {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
				if _, err := w.Write(body[i : i+1]); err != nil {
					return
				}
			}
		}()
		f.judge(q, w.answer(q, bodyGrace+refusalTime+slack))
		close(stop)
		<-stopped
		f.gone(w, refusalTime+slack)
	})
}

// upload sends an order over HTTP/2 whose body ends as f says.
func (f *faulter) upload(q *request, body func(io.Writer, context.CancelFunc)) *answer {
	ctx, cancel := context.WithTimeout(context.Background(), bodyGrace+refusalTime+slack)
	defer cancel()
	r, err := q.build(ctx, f.child.addr)
	if err != nil {
		return &answer{err: err}
	}
	in, out := io.Pipe()
	r.Body = in
	go body(out, cancel)
	a := &answer{sent: time.Now()}
	res, err := f.clients[1].transport.RoundTrip(r)
	a.read(res, err)
	_ = in.Close()
	return a
}

func slowBody2(f *faulter) {
	q := f.order(outcome{408, "request_timeout", true})
	f.judge(q, f.upload(q, func(w io.Writer, _ context.CancelFunc) { _, _ = w.Write(q.body[:20]) }))
}

func abortedUpload2(f *faulter) {
	q := f.order()
	q.maybeCut = true
	f.judge(q, f.upload(q, func(w io.Writer, cancel context.CancelFunc) {
		_, _ = w.Write(q.body[:20])
		time.Sleep(time.Duration(f.g.rng.IntN(100)) * time.Millisecond)
		cancel()
	}))
}

func pieces(f *faulter) {
	q := f.order(outcome{201, "", true})
	q.chunked = f.g.one(2)
	f.on(func(w *wire) {
		head, body := f.text(q)
		all := append(head, body...)
		for i := 0; i < len(all); i += 40 {
			_, _ = w.Write(all[i:min(i+40, len(all))])
			time.Sleep(50 * time.Millisecond)
		}
		f.judge(q, w.answer(q, slack))
	})
}

func abortedUpload(f *faulter) {
	f.on(func(w *wire) {
		head, body := f.text(f.order())
		_, _ = w.Write(append(head, body[:f.g.rng.IntN(len(body))]...))
		time.Sleep(time.Duration(f.g.rng.IntN(100)) * time.Millisecond)
		if f.g.one(2) {
			w.reset()
		}
	})
}

func halfUpload(f *faulter) {
	q := f.order(outcome{400, "bad_request", true})
	q.chunked, q.half = f.g.one(2), true
	f.on(func(w *wire) {
		head, body := f.text(q)
		_, _ = w.Write(append(head, body[:20]...))
		_ = w.CloseWrite()
		f.judge(q, w.answer(q, refusalTime+slack))
		f.gone(w, slack)
	})
}

// halfClosed sends a request and no more. The server takes that for a client that has
// left, so that there may be no answer; half of one is a fault.
func halfClosed(f *faulter) {
	path := pick(f.g, "/v1/prices/btc-usd", "/v1/slow?d=300ms")
	q := f.get(path, outcome{200, "", true})
	q.header.Del("Accept")
	q.problem, q.varies, q.half = false, path == "/v1/prices/btc-usd", true
	q.right = isPrice("btc-usd", "application/json")
	if !q.varies {
		q.right = isData(`{"slept":"300ms"}`)
	}
	f.on(func(w *wire) {
		head, _ := f.text(q)
		_, _ = w.Write(head)
		_ = w.CloseWrite()
		a := w.answer(q, slack)
		q.maybeCut = a.status == 0 // nothing at all
		f.judge(q, a)
		f.gone(w, slack)
	})
}

// refusedUpload has no key, and stalls or sends more than anybody reads: the refusal
// arrives all the same, and the connection closes.
func refusedUpload(f *faulter) {
	q := f.order()
	q.header.Del("Authorization")
	q.header.Del("X-API-Key")
	q.caller, q.bare, q.want = nil, true, []outcome{{401, "key_missing", false}}
	q.body = []byte(strings.Repeat("x", 1<<20))
	q.chunked = f.g.one(2)
	sends := pick(f.g, 0, 100, 10_000, 600_000)
	f.on(func(w *wire) {
		head, body := f.text(q)
		_, _ = w.Write(append(head, body[:sends]...))
		f.judge(q, w.answer(q, refusalTime+slack))
		f.gone(w, refusalTime+slack)
	})
}

func expects(f *faulter) {
	q := f.order(outcome{201, "", true})
	q.header.Set("Expect", "100-continue")
	refused := f.g.one(2)
	if refused {
		q.header.Set("Content-Encoding", "gzip")
		q.encoded, q.want[0] = true, outcome{415, "unsupported_media_type", true}
	}
	f.on(func(w *wire) {
		head, body := f.text(q)
		_, _ = w.Write(head)
		a := w.answer(q, refusalTime+slack)
		if a.status == http.StatusContinue {
			if refused {
				f.tally.violation("a refused request is asked for its body", q.String())
			}
			_, _ = w.Write(body)
			a = w.answer(q, slack)
		}
		f.judge(q, a)
	})
}

// neverReads asks for more than buffers hold and reads nothing of it.
func neverReads(f *faulter) {
	f.on(func(w *wire) {
		_ = w.SetReadBuffer(4 << 10)
		_ = w.SetWriteDeadline(time.Now().Add(2 * time.Second))
		all := strings.Repeat("GET /healthz HTTP/1.1\r\nHost: soak\r\n\r\n", 1000)
		for range 50 {
			if _, err := io.WriteString(w, all); err != nil {
				break
			}
		}
		wait(f.ctx, time.Second)
		w.reset()
	})
}

// waitsForUpstream waits, with many others, for an upstream that never answers.
func waitsForUpstream(f *faulter) {
	f.exchange(pick(f.g, f.clients...), f.get("/v1/upstream?as=slow", outcome{504, "gateway_timeout", true}))
}

func leaves(f *faulter) {
	q := f.get("/v1/slow?d=900ms", outcome{200, "", true})
	q.right = isData(`{"slept":"900ms"}`)
	q.maybeCut = true
	after := time.Duration(f.g.rng.IntN(400)) * time.Millisecond
	if f.g.one(2) {
		f.on(func(w *wire) {
			head, _ := f.text(q)
			_, _ = w.Write(head)
			time.Sleep(after)
			if f.g.one(2) {
				w.reset()
			}
		})
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	r, err := q.build(ctx, f.child.addr)
	if err != nil {
		return
	}
	a := &answer{sent: time.Now()}
	res, err := f.clients[1].transport.RoundTrip(r)
	a.read(res, err)
	f.judge(q, a)
}

var event = regexp.MustCompile(`^event: price\ndata: \{"bid":"64250.10","ask":"64251.40","at":"[0-9T:-]+Z?[+0-9:]*"\}\n\n$`)

// leavesStream reads some events, each of which must be whole.
func leavesStream(f *faulter) {
	q := f.get("/v1/stream", outcome{200, "", true})
	q.right = func(a *answer) error {
		if !event.Match(a.body) {
			return fmt.Errorf("the event is %q", a.body)
		}
		return isType(a, "text/event-stream")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := q.build(ctx, f.child.addr)
	if err != nil {
		return
	}
	a := &answer{sent: time.Now()}
	res, err := pick(f.g, f.clients...).transport.RoundTrip(r)
	if err != nil || res.StatusCode != http.StatusOK {
		a.read(res, err)
		f.judge(q, a)
		return
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for range 1 + f.g.rng.IntN(3) {
		var one []byte
		for range 3 {
			line, err := lines.ReadBytes('\n')
			if one = append(one, line...); err != nil {
				a.err = err
			}
		}
		a.status, a.proto, a.header, a.length, a.body = res.StatusCode, res.ProtoMajor, res.Header, -1, one
		a.received = time.Now()
		if err := q.check(a); err != nil {
			f.tally.violation(err.Error(), q.String()+"\n"+a.String())
		}
	}
	f.judge(q, a) // once: it was admitted once
}

func churn(f *faulter) {
	for range 30 {
		f.on(func(w *wire) {
			_, _ = io.WriteString(w, pick(f.g, "", "G", "GET / HTTP/1.1\r\nHost: ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
			if f.g.one(2) {
				w.reset()
			}
		})
	}
}

// garbage is answered by the server itself, if at all: admit sees no request.
func garbage(f *faulter) {
	text := make([]byte, 200)
	for i := range text {
		text[i] = byte(f.g.rng.IntN(256))
	}
	text = append(text, "\r\n\r\n"...)
	status := "400 Bad Request"
	if f.g.one(2) {
		text = []byte("GET / HTTP/1.1\r\nHost: soak\r\nX-Long: " + strings.Repeat("x", 30<<10) + "\r\n\r\n")
		status = "431 Request Header Fields Too Large"
	}
	f.on(func(w *wire) {
		_, _ = w.Write(text)
		f.ownWords(w, status, readHeaderTimeout+slack)
	})
}

// ownWords checks that the server closes the connection, and that if it says anything it
// is what net/http says itself of bytes that are no request.
func (f *faulter) ownWords(w *wire, status string, within time.Duration) {
	const form = "HTTP/1.1 %[1]s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n%[1]s"
	said, err := w.rest(within)
	if err != nil || said != "" && said != fmt.Sprintf(form, status) {
		f.tally.violation(fmt.Sprintf("%s: %v, %q", f.name, err, said), "")
	}
}

func keyFlood(f *faulter) {
	c := pick(f.g, f.clients...)
	for range 200 {
		q := f.get("/v1/prices/btc-usd")
		q.header.Del("Authorization")
		q.header.Set("X-API-Key", newCaller("", "pro").token)
		q.caller, q.want = nil, []outcome{{401, "key_invalid", false}}
		f.exchange(c, q)
	}
}

func idle(f *faulter) {
	q := f.get("/v1/upstream", outcome{400, "bad_request", true})
	f.on(func(w *wire) {
		head, _ := f.text(q)
		_, _ = w.Write(head)
		f.judge(q, w.answer(q, slack))
		f.gone(w, idleTimeout+slack)
	})
}

// waitsItsTurn is the one sender of its key: what Retry-After says is true for it.
func waitsItsTurn(f *faulter) {
	waited := false
	for f.ctx.Err() == nil {
		q := f.get("/v1/upstream", outcome{400, "bad_request", true})
		q.header.Del("Authorization")
		q.header.Set("X-API-Key", f.keys.lone.token)
		q.caller = f.keys.lone
		if waited {
			q.want = slices.Delete(q.want, 1, 2)
		}
		a := f.clients[0].send(q)
		f.judge(q, a)
		if waited || a.err != nil {
			return
		}
		if a.status == http.StatusTooManyRequests {
			d, _ := time.ParseDuration(a.header.Get("Retry-After") + "s")
			wait(f.ctx, d)
			waited = true
		}
	}
}
