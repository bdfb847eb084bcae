package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// The service of the soak below is this binary.
func TestMain(m *testing.M) {
	if serveAsChild() {
		return
	}
	os.Exit(m.Run())
}

func TestShortSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	t.Parallel()
	var out bytes.Buffer
	err := run(context.Background(), []string{"-for", "1s"}, &out)
	require.NoError(t, err, "%s", &out)
	assert.Contains(t, out.String(), "none of")
	assert.Contains(t, out.String(), "in the OpenAPI document")
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-for", "10ms"}, {"-for", "1m", "more"}} {
		assert.Error(t, run(context.Background(), args, new(bytes.Buffer)), "%v", args)
	}
}

// refused is a request without a key, and its answer.
func refused() (*request, *answer) {
	q := &request{kind: "price", method: "GET", path: "/v1/prices/btc-usd", bare: true, want: []outcome{{401, "key_missing", false}}, allow: "GET, HEAD, OPTIONS"}
	body := `{"result":"error","message":"m","code":"key_missing","request_id":"1"}` + "\n"
	return q, &answer{
		status: 401, proto: 1, body: []byte(body), length: int64(len(body)),
		header: http.Header{
			"Content-Type": {"application/json"}, "X-Content-Type-Options": {"nosniff"}, "Cache-Control": {"no-store"}, "X-Request-Id": {"1"},
			"Www-Authenticate": {`Bearer realm="market data"`, `ApiKey in="header", name="X-Api-Key", realm="market data"`},
		},
	}
}

// limited is a request that the limits refuse, and its answer.
func limited() (*request, *answer) {
	q, a := refused()
	q.caller = &caller{key: admit.Key{ID: "k", Plan: "free"}}
	q.keys, q.want = new(keyring), []outcome{{200, "", true}, {429, "rate_limited", true}}
	a.status = 429
	a.says(`{"result":"error","message":"m","code":"rate_limited","request_id":"1","retry_after":7,"limits":["minute"]}` + "\n")
	a.header.Del("Www-Authenticate")
	a.header.Set("Retry-After", "7")
	a.header.Set("RateLimit-Policy", `"second";q=5;w=1, "minute";q=100;w=60`)
	a.header.Set("RateLimit", `"second";r=5;t=0, "minute";r=0;t=7`)
	return q, a
}

// exceeded is a request that a quota refuses, and its answer.
func exceeded() (*request, *answer) {
	q, a := limited()
	q.want = []outcome{{200, "", true}, {429, "quota_exceeded", true}}
	a.sent = time.Date(2026, time.February, 28, 23, 0, 0, 0, time.UTC)
	a.says(`{"result":"error","message":"m","code":"quota_exceeded","request_id":"1","retry_after":3600,"limits":["month"],` +
		`"resets_at":"2026-03-01T00:00:00Z","upgrade_url":"https://example.com/plans/pro"}` + "\n")
	a.header.Set("Retry-After", "3600")
	a.header.Set("RateLimit", `"second";r=4;t=1, "minute";r=99;t=60`)
	a.header.Add("RateLimit-Policy", `"month";q=10000;w=2419200`)
	a.header.Add("RateLimit", `"month";r=0;t=3600`)
	return q, a
}

func (a *answer) says(body string) { a.body, a.length = []byte(body), int64(len(body)) }

func TestCheckComplains(t *testing.T) {
	t.Parallel()
	for _, right := range []func() (*request, *answer){refused, limited, exceeded} {
		q, a := right()
		require.NoError(t, q.check(a))
	}
	tests := []struct {
		name  string
		of    func() (*request, *answer)
		spoil func(*request, *answer)
		says  string
	}{
		{"no answer", refused, func(_ *request, a *answer) { a.err = errors.New("EOF") }, "no whole answer"},
		{"no envelope", refused, func(_ *request, a *answer) { a.says("Unauthorized\n") }, "not the envelope"},
		{"an unknown member", refused, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), `"code"`, `"cause":"db","code"`, 1))
		}, "not the envelope"},
		{"members in another order", refused, func(_ *request, a *answer) {
			a.says(`{"message":"m","result":"error","code":"key_missing","request_id":"1"}` + "\n")
		}, "begin and end"},
		{"something after it", refused, func(_ *request, a *answer) { a.says(string(a.body) + "{}\n") }, "begin and end"},
		{"no message", refused, func(_ *request, a *answer) { a.says(strings.Replace(string(a.body), `"m"`, `""`, 1)) }, "no message"},
		{"another request's id", refused, func(_ *request, a *answer) { a.header.Set("X-Request-Id", "2") }, "request id"},
		{"an id that was not kept", refused, func(q *request, _ *answer) { q.id = "mine" }, "X-Request-Id"},
		{"problem details that nobody wants", refused, func(_ *request, a *answer) { a.header.Set("Content-Type", "application/problem+json") }, "Content-Type"},
		{"no problem details", refused, func(q *request, _ *answer) { q.problem = true }, "Content-Type"},
		{"no nosniff", refused, func(_ *request, a *answer) { a.header.Del("X-Content-Type-Options") }, "nosniff"},
		{"may be stored", refused, func(_ *request, a *answer) { a.header.Del("Cache-Control") }, "no-store"},
		{"a wrong length", refused, func(_ *request, a *answer) { a.length++ }, "Content-Length"},
		{"another code", refused, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), "key_missing", "unauthorized", 1))
		}, "not one of"},
		{"another status", refused, func(_ *request, a *answer) { a.status = 403 }, "not one of"},
		{"a key that is valid", refused, func(q *request, _ *answer) {
			q.keys, q.caller = new(keyring), &caller{}
			q.want = []outcome{{200, "", true}}
		}, "not one of"},
		{"no challenge", refused, func(_ *request, a *answer) { a.header.Del("Www-Authenticate") }, "WWW-Authenticate"},
		{"a token", refused, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), `"m"`, `"demo_free_0123 is unknown"`, 1))
		}, "credential"},
		{"a token in a header", refused, func(_ *request, a *answer) { a.header.Set("X-Debug", "s3cret") }, "credential"},
		{"limits of nobody", refused, func(_ *request, a *answer) { a.header.Set("RateLimit", `"second";r=1;t=1`) }, "not counted"},
		{"no limit that refuses", limited, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), `,"limits":["minute"]`, "", 1))
		}, "names the limits"},
		{"a limit that is not reached", limited, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), `"minute"`, `"second"`, 1))
		}, "is not reached"},
		{"a name of problem details", limited, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), `"limits"`, `"violated-policies"`, 1))
		}, "names the limits"},
		{"a body for HEAD", refused, func(q *request, _ *answer) { q.method = "HEAD" }, "HEAD"},
		{"Connection over HTTP/2", refused, func(_ *request, a *answer) {
			a.proto = 2
			a.header.Set("Connection", "close")
		}, "HTTP/2"},
		{"405 without Allow", refused, func(q *request, a *answer) {
			q.want, a.status = []outcome{{405, "key_missing", false}}, 405
		}, "Allow"},
		{"415 without Accept", refused, func(q *request, a *answer) {
			q.want, a.status = []outcome{{415, "key_missing", false}}, 415
		}, "Accept"},
		{"406 without offers", refused, func(q *request, a *answer) {
			q.want, a.status = []outcome{{406, "key_missing", false}}, 406
		}, "offers"},
		{"402 without upgrade_url", refused, func(q *request, a *answer) {
			q.want, a.status = []outcome{{402, "key_missing", false}}, 402
		}, "upgrade_url"},
		{"422 without errors", refused, func(q *request, a *answer) {
			q.want, a.status = []outcome{{422, "key_missing", false}}, 422
		}, "errors"},
		{"a wrong body", refused, func(q *request, a *answer) {
			q.want, a.status, q.right = []outcome{{200, "", false}}, 200, isData("1")
		}, "the body is"},
		{"no Vary", limited, func(q *request, a *answer) {
			q.want, a.status, q.varies, q.right = []outcome{{200, "", true}}, 200, true, func(*answer) error { return nil }
		}, "Vary"},
		{"no Retry-After", limited, func(_ *request, a *answer) { a.header.Del("Retry-After") }, "Retry-After"},
		{"another retry_after", limited, func(_ *request, a *answer) { a.header.Set("Retry-After", "8") }, "Retry-After"},
		{"no RateLimit", limited, func(_ *request, a *answer) { a.header.Del("RateLimit") }, "RateLimit"},
		{"no reason to refuse", limited, func(_ *request, a *answer) {
			a.header.Set("RateLimit", `"second";r=5;t=0, "minute";r=1;t=7`)
		}, "no limit refuses"},
		{"the limits of another plan", limited, func(q *request, _ *answer) { q.caller.key.Plan = "pro" }, "RateLimit"},
		{"no resets_at", exceeded, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), `"resets_at":"2026-03-01T00:00:00Z",`, "", 1))
		}, "resets_at"},
		{"a reset on another day", exceeded, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), "2026-03-01", "2026-03-02", 1))
		}, "resets_at"},
		{"a quota that nobody may buy more of", exceeded, func(_ *request, a *answer) {
			a.says(strings.Replace(string(a.body), "/plans/pro", "/plans", 1))
		}, "upgrade_url"},
		{"a quota with something left", exceeded, func(_ *request, a *answer) { a.header["Ratelimit"][1] = `"month";r=1;t=3600` }, "RateLimit"},
		{"another time to the reset", exceeded, func(_ *request, a *answer) { a.header["Ratelimit"][1] = `"month";r=0;t=3599` }, "Retry-After"},
		{"a month of another length", exceeded, func(_ *request, a *answer) { a.header["Ratelimit-Policy"][1] = `"month";q=10000;w=2678400` }, "RateLimit-Policy"},
		{"a quota without its limits", exceeded, func(_ *request, a *answer) {
			a.header["Ratelimit"], a.header["Ratelimit-Policy"] = a.header["Ratelimit"][1:], a.header["Ratelimit-Policy"][1:]
		}, "RateLimit"},
		{"a quota of nobody", exceeded, func(q *request, _ *answer) { q.caller.key.Plan = "" }, "RateLimit"},
		{"a quota where nothing is counted", exceeded, func(q *request, _ *answer) { q.kind = "usage" }, "no quota was counted"},
		{"no quota", limited, func(q *request, a *answer) {
			q.want, a.status, q.right = []outcome{{200, "", true}}, 200, func(*answer) error { return nil }
			a.header.Del("Retry-After")
		}, "has no quota"},
		{"a key that is revoked", limited, func(q *request, a *answer) {
			a.sent = time.Now()
			a.received = a.sent
			q.caller.removed = interval{a.sent.Add(-time.Minute), a.sent.Add(-takesEffect - time.Millisecond)}
		}, "not one of"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q, a := tt.of()
			tt.spoil(q, a)
			assert.ErrorContains(t, q.check(a), tt.says)
		})
	}
}

// The window of doubt around a write of the key file, and nothing beyond.
func TestStanding(t *testing.T) {
	t.Parallel()
	at := time.Now()
	after := func(d time.Duration) time.Time { return at.Add(d) }
	c := &caller{added: interval{at, after(time.Second)}}
	standing := func(sent, received time.Duration, accepted, refused bool) {
		t.Helper()
		a, r := c.standing(after(sent), after(received))
		assert.Equal(t, [2]bool{accepted, refused}, [2]bool{a, r})
	}
	standing(-2, -1, false, true)
	standing(-1, 1, true, true)
	standing(time.Second+takesEffect, 10*time.Second, true, true)
	standing(time.Second+takesEffect+1, 10*time.Second, true, false)
	c.removed = interval{after(20 * time.Second), after(21 * time.Second)}
	standing(10*time.Second, 19*time.Second, true, false)
	standing(19*time.Second, 22*time.Second, true, true)
	standing(21*time.Second+takesEffect, 30*time.Second, true, true)
	standing(21*time.Second+takesEffect+1, 30*time.Second, false, true)
}

func TestExcess(t *testing.T) {
	t.Parallel()
	at := func(ms ...int) (spans []span) {
		for _, m := range ms {
			d := time.Duration(m) * time.Millisecond
			spans = append(spans, span{d, d + 5*time.Millisecond})
		}
		return spans
	}
	limit := admit.PerSecond(2)
	assert.NoError(t, excess(nil, limit))
	assert.NoError(t, excess(at(0, 0, 500, 1000), limit), "a burst, and what comes back in a second")
	assert.ErrorContains(t, excess(at(0, 0, 200, 500, 900), limit), `5 were admitted`)
	assert.NoError(t, excess(at(0, 0, 200, 500, 996, 10_000), limit), "they may be more than a second apart")
	assert.ErrorContains(t, excess(at(0, 300, 700, 1000, 1300, 1700, 2000, 2300, 2700), limit), "9 were admitted in", "each second by itself is within")
	assert.ErrorContains(t, excess(at(0, 0, 0, 0, 0), admit.Limit{Name: "slow", Requests: 1, Per: time.Minute, Burst: 3}), `"slow"`)
}

func TestExceeds(t *testing.T) {
	t.Parallel()
	level := state{Goroutines: 5, Files: 10, Heap: 1 << 20}
	assert.NoError(t, level.exceeds(level))
	assert.NoError(t, state{Goroutines: 4, Files: 9, Heap: level.Heap + heapTolerance}.exceeds(level))
	assert.ErrorContains(t, state{Goroutines: 6, Files: 10, Heap: 1}.exceeds(level), "6 goroutines")
	assert.ErrorContains(t, state{Goroutines: 5, Files: 11, Heap: 1}.exceeds(level), "11 file descriptors")
	assert.ErrorContains(t, state{Goroutines: 5, Files: 10, Heap: level.Heap + heapTolerance + 1}.exceeds(level), "heap")
}

func TestLogIsRead(t *testing.T) {
	t.Parallel()
	c := newTally()
	c.readLog(strings.NewReader(`{"level":"ERROR","msg":"admit: a handler panicked","panic":"as asked for"}` + "\n" +
		`{"level":"INFO","msg":"request","http.response.status_code":200,"request_id":"a"}` + "\n"))
	assert.Zero(t, c.violations)
	assert.Equal(t, map[logged]int{{"a", 200}: 1}, c.access.open)
	c.readLog(strings.NewReader(`{"level":"WARN","msg":"http: superfluous response.WriteHeader call"}` + "\n" +
		`{"level":"ERROR","msg":"admit: a request failed","error":"no key demo_free_0123"}` + "\n" +
		`{"level":"INFO","msg":"request","url.path":"/demo_pro_0123"}` + "\n" +
		"panic: not of the logger, {\"msg\":\"request\"}\n"))
	assert.Equal(t, 4, c.violations)
	assert.Equal(t, 1, c.access.lines)
}

func TestAccessLogIsHeldAgainstAnswers(t *testing.T) {
	t.Parallel()
	const requests = 4
	kept := func() *accessLog {
		l := newAccessLog()
		l.line("a", 200)
		l.answer("a", 200, false)
		l.answer("b", 404, false) // which may be seen first
		l.line("b", 404)
		l.line("left", 499) // nobody has waited for it
		l.line("half", 499)
		l.answer("half", 200, true)
		return &l
	}
	require.NoError(t, kept().check(requests))
	for says, spoil := range map[string]func(*accessLog){
		"1 answers have no line of the access log with their status: c with 200": func(l *accessLog) { l.answer("c", 200, false) },
		"whole with 200": func(l *accessLog) {
			l.line("whole", 499)
			l.answer("whole", 200, false)
		},
		"half with 200": func(l *accessLog) { l.answer("half", 200, true) },
		"a with 200":    func(l *accessLog) { l.answer("a", 200, false) },
		"c with 503": func(l *accessLog) {
			l.line("c", 200)
			l.answer("c", 503, false)
		},
		"5 lines, and the service has had 4 requests": func(l *accessLog) { l.line("a", 200) },
	} {
		l := kept()
		spoil(l)
		assert.ErrorContains(t, l.check(requests), says)
	}
}

func TestVerdictFails(t *testing.T) {
	t.Parallel()
	calm := state{Goroutines: 3, Files: 9, Heap: 1}
	tests := map[string]struct {
		spoil  func(*soak)
		after  state
		lasted time.Duration
	}{
		"7 goroutines are left":     {func(*soak) {}, state{Goroutines: 7, Files: 9, Heap: 1}, time.Second},
		"1 violations; the seed is": {func(s *soak) { s.tally.violation("this", "in full") }, calm, time.Second},
		"k: 3 were admitted": {func(s *soak) {
			c := &caller{key: admit.Key{ID: "k"}}
			for range 9 {
				s.tally.admit(c, span{0, 1})
			}
		}, calm, time.Second},
		"k: 41 were served, of a quota of 40": {func(s *soak) {
			c := &caller{key: admit.Key{ID: "k", Quotas: []admit.Quota{{Name: "month", Requests: 40}}}}
			for range 41 {
				s.tally.serve(c)
			}
		}, calm, time.Second},
		"1 answers are not in the OpenAPI document": {func(s *soak) {
			q, a := refused()
			s.tally.documented(q, a, errors.New("this"))
		}, calm, time.Second},
		"1 lines, and the service has had 0 requests":                   {func(s *soak) { s.tally.access.line("a", 200) }, calm, time.Second},
		"has not happened: an answer that is in the document, 200, 201": {func(*soak) {}, calm, shortRun},
	}
	for says, tt := range tests {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			s := &soak{tally: newTally()}
			require.NoError(t, s.verdict(new(bytes.Buffer), calm, calm, time.Second))
			tt.spoil(s)
			var out bytes.Buffer
			require.ErrorContains(t, s.verdict(&out, calm, tt.after, tt.lasted), says)
			assert.Contains(t, out.String(), "FAILED")
		})
	}
}

func TestSeedRepeats(t *testing.T) {
	t.Parallel()
	k, err := newKeyring(filepath.Join(t.TempDir(), "keys.json"))
	require.NoError(t, err)
	draw := func() (all []string) {
		g := &generator{rng: rand.New(rand.NewPCG(1, 2)), keys: k, orders: map[*caller]string{}}
		for range 500 {
			q := g.next()
			token := q.header.Get("X-Api-Key") + q.header.Get("Authorization")
			if q.caller == nil { // made-up keys are minted, from no seed
				token = fmt.Sprint(len(token))
			}
			all = append(all, fmt.Sprint(q.kind, q.method, q.path, q.want, string(q.body), token))
		}
		return all
	}
	assert.Equal(t, draw(), draw())
}
