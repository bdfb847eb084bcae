package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/client"
)

var errDropped = errors.New("the connection has ended")

// script is a RoundTripper that answers its attempts in order, the last answer again and
// again, and notes when they came and with which body.
type script struct {
	t       *testing.T
	answers []answer
	at      []time.Time
	bodies  []string
	open    *body // of the answer before
}

type answer struct {
	status     int // 0: none
	retryAfter string
	body       string
	takes      time.Duration
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.open != nil {
		assert.True(s.t, s.open.closed && s.open.Len() == 0, "the answer before is drained and closed, so that its connection is used again")
	}
	require.Less(s.t, len(s.at), 20, "attempts without end")
	a := s.answers[min(len(s.at), len(s.answers)-1)]
	s.at = append(s.at, time.Now())
	sent := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		require.NoError(s.t, err)
		require.NoError(s.t, r.Body.Close())
		sent = string(b)
	}
	s.bodies = append(s.bodies, sent)
	select {
	case <-time.After(a.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if a.status == 0 {
		s.open = nil
		return nil, errDropped
	}
	s.open = &body{Buffer: bytes.NewBufferString(a.body)}
	h := http.Header{}
	if a.retryAfter != "" {
		h.Set("Retry-After", a.retryAfter)
	}
	return &http.Response{StatusCode: a.status, Header: h, Body: s.open, Request: r}, nil
}

// CloseIdleConnections is for the owner of the transport: others use its connections too.
func (s *script) CloseIdleConnections() { s.t.Error("the idle connections of others are closed") }

type body struct {
	*bytes.Buffer
	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

func failure(status int) answer { return answer{status: status, body: "an error"} }
func busy(after string) answer  { return answer{status: 429, retryAfter: after, body: "an error"} }
func coded(code, after string) answer {
	return answer{status: 503, retryAfter: after, body: `{"result":"error","message":"Later.","code":"` + code + `"}`}
}

// within is a wait that is told, and what may be on top of it.
type within struct{ least, most time.Duration }

var (
	good   = answer{status: 200, body: "the answer"}
	soon   = within{100 * time.Millisecond, 300 * time.Millisecond}
	second = within{time.Second, 1500 * time.Millisecond}
)

func TestAttempts(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	day := answer{status: 429, retryAfter: "86400", body: "an error"}
	for name, test := range map[string]struct {
		method   string // GET
		keyed    bool   // it has an Idempotency-Key
		stream   bool   // its body cannot be had again
		patience time.Duration
		deadline time.Duration
		answers  []answer
		waits    []within
		status   int // of what the caller gets; 0: the error
		err      error
	}{
		"good":                     {answers: []answer{good}, status: 200},
		"500":                      {answers: []answer{failure(500), good}, waits: []within{soon}, status: 200},
		"502":                      {answers: []answer{failure(502), good}, waits: []within{soon}, status: 200},
		"503":                      {answers: []answer{failure(503), good}, waits: []within{soon}, status: 200},
		"504":                      {answers: []answer{failure(504), good}, waits: []within{soon}, status: 200},
		"dropped":                  {answers: []answer{{}, good}, waits: []within{soon}, status: 200},
		"500 for ever":             {answers: []answer{failure(500)}, waits: []within{soon}, status: 500},
		"500, then 503":            {answers: []answer{failure(500), failure(503)}, waits: []within{soon}, status: 503},
		"dropped for ever":         {answers: []answer{{}}, waits: []within{soon}, err: errDropped},
		"dropped, then 500":        {answers: []answer{{}, failure(500)}, waits: []within{soon}, status: 500},
		"501":                      {answers: []answer{failure(501)}, status: 501},
		"505":                      {answers: []answer{failure(505)}, status: 505},
		"400":                      {answers: []answer{failure(400)}, status: 400},
		"401":                      {answers: []answer{failure(401)}, status: 401},
		"404":                      {answers: []answer{failure(404)}, status: 404},
		"408 with Retry-After":     {answers: []answer{{status: 408, retryAfter: "1"}}, status: 408},
		"409":                      {answers: []answer{failure(409)}, status: 409},
		"425 with Retry-After":     {answers: []answer{{status: 425, retryAfter: "1"}}, status: 425},
		"503 with Retry-After":     {answers: []answer{{status: 503, retryAfter: "2"}, good}, waits: []within{{2000 * ms, 3000 * ms}}, status: 200},
		"503 for long":             {answers: []answer{{status: 503, retryAfter: "11"}}, status: 503},
		"503 with a bad one":       {answers: []answer{{status: 503, retryAfter: "soon"}, good}, waits: []within{soon}, status: 200},
		"429":                      {answers: []answer{busy("1"), good}, waits: []within{second}, status: 200},
		"429 many times":           {answers: []answer{busy("1"), busy("1"), busy("2"), busy("1"), good}, waits: []within{second, second, {2000 * ms, 3000 * ms}, second}, status: 200},
		"429 and 500":              {answers: []answer{busy("1"), failure(500), busy("1"), good}, waits: []within{second, soon, second}, status: 200},
		"429 and 500 and 500":      {answers: []answer{busy("1"), failure(500), busy("1"), failure(500)}, waits: []within{second, soon, second}, status: 500},
		"429 until a date":         {answers: []answer{busy("Sat, 01 Jan 2000 00:00:03 GMT"), good}, waits: []within{{3000 * ms, 4500 * ms}}, status: 200},
		"429 until an old date":    {answers: []answer{busy("Friday, 31-Dec-99 23:59:59 GMT"), good}, waits: []within{second}, status: 200},
		"429 without Retry-After":  {answers: []answer{busy("")}, status: 429},
		"429 and a bad one":        {answers: []answer{busy("1.5")}, status: 429},
		"429 and a negative one":   {answers: []answer{busy("-1")}, status: 429},
		"429 at once":              {answers: []answer{busy("0"), good}, waits: []within{second}, status: 200},
		"429 of a quota":           {answers: []answer{day}, status: 429},
		"429 beyond 64 bits":       {answers: []answer{busy("18446744074709551617")}, status: 429},
		"429 beyond a Duration":    {answers: []answer{busy("18446744074")}, status: 429},
		"503 beyond a Duration":    {answers: []answer{{status: 503, retryAfter: "18446744074"}}, status: 503},
		"patience":                 {patience: 4 * time.Second, answers: []answer{busy("2")}, waits: []within{{2000 * ms, 3000 * ms}}, status: 429},
		"patience, to the end":     {patience: 2 * time.Second, answers: []answer{busy("2"), good}, waits: []within{{2000 * ms, 2000 * ms}}, status: 200},
		"patience of a second":     {patience: time.Second, answers: []answer{busy("2")}, status: 429},
		"deadline before":          {deadline: 1900 * ms, answers: []answer{busy("2")}, status: 429},
		"deadline after":           {deadline: 2200 * ms, answers: []answer{busy("2"), good}, waits: []within{{2000 * ms, 2100 * ms}}, status: 200},
		"deadline of the second":   {deadline: 900 * ms, answers: []answer{failure(500), {status: 200, takes: time.Second}}, waits: []within{soon}, err: context.DeadlineExceeded},
		"deadline of the first":    {deadline: 900 * ms, answers: []answer{{status: 200, takes: time.Second}}, err: context.DeadlineExceeded},
		"HEAD":                     {method: "HEAD", answers: []answer{failure(500), good}, waits: []within{soon}, status: 200},
		"QUERY":                    {method: "QUERY", answers: []answer{failure(500), good}, waits: []within{soon}, status: 200},
		"PUT":                      {method: "PUT", answers: []answer{failure(500), good}, waits: []within{soon}, status: 200},
		"DELETE":                   {method: "DELETE", answers: []answer{{}, good}, waits: []within{soon}, status: 200},
		"PUT of a stream":          {method: "PUT", stream: true, answers: []answer{failure(500)}, status: 500},
		"PUT of a stream, refused": {method: "PUT", stream: true, answers: []answer{busy("1")}, status: 429},
		"POST":                     {method: "POST", answers: []answer{failure(500)}, status: 500},
		"POST 502":                 {method: "POST", answers: []answer{failure(502)}, status: 502},
		"POST 503 of a proxy":      {method: "POST", answers: []answer{{status: 503, retryAfter: "1", body: "<p>maintenance"}}, status: 503},
		"POST 503, long":           {method: "POST", answers: []answer{{status: 503, body: strings.Repeat("long ", 2000)}}, status: 503},
		"POST 504":                 {method: "POST", answers: []answer{failure(504)}, status: 504},
		"POST dropped":             {method: "POST", answers: []answer{{}}, err: errDropped},
		"POST 429":                 {method: "POST", answers: []answer{busy("1"), good}, waits: []within{second}, status: 200},
		"POST in maintenance":      {method: "POST", answers: []answer{coded("maintenance", "1"), good}, waits: []within{second}, status: 200},
		"POST, no end known":       {method: "POST", answers: []answer{coded("maintenance", "")}, waits: []within{soon}, status: 503},
		"POST without a store":     {method: "POST", answers: []answer{coded("store_unavailable", "1"), good}, waits: []within{second}, status: 200},
		"POST that was late":       {method: "POST", answers: []answer{coded("handler_timeout", "1")}, status: 503},
		"POST 500 with that code":  {method: "POST", answers: []answer{{status: 500, body: coded("maintenance", "").body}}, status: 500},
		"POST with a key":          {method: "POST", keyed: true, answers: []answer{failure(500), good}, waits: []within{soon}, status: 200},
		"POST with a key, dropped": {method: "POST", keyed: true, answers: []answer{{}, good}, waits: []within{soon}, status: 200},
		"POST with a key, late":    {method: "POST", keyed: true, answers: []answer{coded("handler_timeout", ""), good}, waits: []within{soon}, status: 200},
		"PATCH":                    {method: "PATCH", answers: []answer{failure(500)}, status: 500},
		"PATCH 429":                {method: "PATCH", answers: []answer{busy("1"), good}, waits: []within{second}, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				var content io.Reader
				sent := ""
				if test.method != "" && test.method != "HEAD" && test.method != "DELETE" {
					sent = `{"pair":"btc-usd"}`
					content = strings.NewReader(sent)
				}
				if test.stream {
					content = io.MultiReader(content)
				}
				r, err := http.NewRequestWithContext(ctx, test.method, "http://api.example.com/", content)
				require.NoError(t, err)
				if test.keyed {
					r.Header.Set("Idempotency-Key", "k1")
				}

				s := &script{t: t, answers: test.answers}
				res, err := (&http.Client{Transport: &client.Transport{Next: s, Patience: test.patience}}).Do(r)
				ended := time.Now()
				last := test.answers[min(len(s.at), len(test.answers))-1]

				require.Len(t, s.at, len(test.waits)+1)
				for i, w := range test.waits {
					wait := s.at[i+1].Sub(s.at[i])
					assert.GreaterOrEqual(t, wait, w.least)
					assert.LessOrEqual(t, wait, w.most)
				}
				if last.takes == 0 {
					assert.Zero(t, ended.Sub(s.at[len(s.at)-1]), "nobody waits after the last attempt")
				}
				for _, b := range s.bodies {
					assert.Equal(t, sent, b, "each attempt has the whole body")
				}
				if test.err != nil {
					require.ErrorIs(t, err, test.err)
					assert.Equal(t, 1, strings.Count(err.Error(), "api.example.com"), "%v", err)
					return
				}
				require.NoError(t, err)
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				assert.Equal(t, test.status, res.StatusCode)
				assert.Equal(t, last.body, string(got), "the last answer is the caller's, whole")
				assert.Equal(t, last.retryAfter, res.Header.Get("Retry-After"))
			})
		})
	}
}

// A caller that leaves while the client waits gets the error of its context at once.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(700*time.Millisecond, cancel)
		r, err := http.NewRequestWithContext(ctx, "GET", "http://api.example.com/", nil)
		require.NoError(t, err)
		s := &script{t: t, answers: []answer{busy("3")}}
		began := time.Now()
		_, err = (&http.Client{Transport: &client.Transport{Next: s}}).Do(r)
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 700*time.Millisecond, time.Since(began))
		assert.Len(t, s.at, 1)
		assert.True(t, s.open.closed)
	})
}

// A redirect is for the client around, which knows what may go with it.
func TestRedirect(t *testing.T) {
	t.Parallel()
	var asked, sent []string
	next := roundTripper(func(r *http.Request) (*http.Response, error) {
		content, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		sent = append(sent, r.URL.Path+" "+string(content))
		res := &http.Response{StatusCode: 307, Header: http.Header{"Location": {"/new"}}, Body: http.NoBody, Request: r}
		if r.URL.Path == "/new" {
			res.StatusCode = 200
		}
		return res, nil
	})
	api := &http.Client{
		Transport:     &client.Transport{Next: next},
		CheckRedirect: func(r *http.Request, _ []*http.Request) error { asked = append(asked, r.URL.Path); return nil },
	}
	res, err := api.Post("http://api.example.com/old", "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, 200, res.StatusCode)
	assert.Equal(t, []string{"/new"}, asked)
	assert.Equal(t, []string{"/old x", "/new x"}, sent)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Whatever Retry-After says, a client comes once more after it, or not at all.
func FuzzRetryAfter(f *testing.F) {
	for _, text := range []string{"", "0", "1", "10", "11", "007", "+1", "-1", "1.5", "1 ", "99999999999999999999", "Sat, 01 Jan 2000 00:00:03 GMT", "Sat Jan  1 00:00:03 2000"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		synctest.Test(t, func(t *testing.T) {
			s := &script{t: t, answers: []answer{busy(text), good}}
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://api.example.com/", nil)
			require.NoError(t, err)
			_, err = (&client.Transport{Next: s}).RoundTrip(r)
			require.NoError(t, err)
			said := time.Duration(-1)
			if n, err := strconv.ParseUint(text, 10, 64); err == nil {
				said = time.Duration(min(n, 1<<32)) * time.Second
			} else if at, err := http.ParseTime(text); err == nil {
				said = at.Sub(s.at[0])
			}
			if len(s.at) == 1 {
				assert.Zero(t, time.Since(s.at[0]))
				assert.True(t, text == "" || said < 0 || said > 10*time.Second, "%q", text)
				return
			}
			wait := s.at[1].Sub(s.at[0])
			assert.GreaterOrEqual(t, wait, max(said, time.Second))
			assert.LessOrEqual(t, wait, 10*time.Second)
		})
	})
}

// Many clients with one key come to a real limiter at once. All get in, nobody before its
// Retry-After, and those that were refused together do not come back together.
func TestManyClientsAtALimit(t *testing.T) {
	t.Parallel()
	const clients, perSecond = 20, 5
	synctest.Test(t, func(t *testing.T) {
		limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(perSecond)}})
		require.NoError(t, err)
		handler := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return admit.Success(w, r, http.StatusOK, nil)
		})
		log := &arrivals{next: limiter.Wrap(handler)}
		pipes := servePipes(t, log)

		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				api := &http.Client{Transport: &client.Transport{
					Next: &http.Transport{DialContext: pipes.dial, MaxIdleConnsPerHost: 1}, Patience: time.Minute,
				}}
				r, err := http.NewRequestWithContext(t.Context(), "POST", "http://api.example.com/", strings.NewReader("an order"))
				require.NoError(t, err)
				r.Header.Set("X-Client", strconv.Itoa(i))
				res, err := api.Do(r)
				if assert.NoError(t, err) {
					assert.Equal(t, 200, res.StatusCode)
					_ = res.Body.Close()
				}
				api.Transport.(*client.Transport).Next.(*http.Transport).CloseIdleConnections()
			})
		}
		all.Wait()

		log.check(t)
		assert.EqualValues(t, clients, pipes.dialled.Load(), "each client stays on its connection")
		assert.Len(t, log.by, clients)
		second := map[time.Time]int{}
		for _, visits := range log.by {
			require.Equal(t, 200, visits[len(visits)-1].status)
			if len(visits) > 1 {
				second[visits[1].at]++
			}
		}
		assert.GreaterOrEqual(t, len(second), (clients-perSecond)*2/3, "refused at once, and back at so many times: %v", second)
	})
}
