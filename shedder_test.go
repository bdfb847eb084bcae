package admit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func newShedder(t testing.TB, c admit.ShedderConfig) *admit.Shedder {
	t.Helper()
	s, err := admit.NewShedder(c)
	require.NoError(t, err)
	return s
}

// as is a request of a caller with such a key.
func as(id, plan string) *http.Request {
	r := get("/" + id)
	return r.WithContext(admit.WithKey(r.Context(), &admit.Key{ID: id, Plan: plan}))
}

func TestShedderFaults(t *testing.T) {
	t.Parallel()
	plans := newPlans(t)
	for _, test := range []struct {
		c      admit.ShedderConfig
		faults []string
	}{
		{admit.ShedderConfig{Max: -1, MaxQueue: -2, Target: -3, Interval: -4}, []string{"Max is -1", "MaxQueue is -2", "Target is -3ns", "Interval is -4ns"}},
		{admit.ShedderConfig{Max: 1, Target: 5, Interval: 100}, []string{"Target is 5ns; a number alone", "Interval is 100ns; a number alone"}},
		{admit.ShedderConfig{Max: 1, Target: time.Second, Interval: 100 * time.Millisecond}, []string{"Target is 1s, but Interval is 100ms"}},
		{admit.ShedderConfig{Max: 1, Interval: time.Millisecond}, []string{"Target is 5ms, but Interval is 1ms"}},
		{admit.ShedderConfig{Max: 1, Plans: plans, Priority: func(*http.Request) int { return 0 }}, []string{"Priority is set together with Plans"}},
		{admit.ShedderConfig{Plans: new(admit.Plans)}, []string{"Max is 0", "ShedderConfig.Plans"}},
	} {
		s, err := admit.NewShedder(test.c)
		for _, fault := range test.faults {
			assert.ErrorContains(t, err, fault)
		}
		assert.Panics(t, func() { s.Wrap(ok) })
		assert.Zero(t, s.Stats())
	}
	assert.Panics(t, func() { (*admit.Shedder)(nil).Wrap(ok) })
	assert.Zero(t, (*admit.Shedder)(nil).Stats())
	_, err := admit.NewShedder(admit.ShedderConfig{Max: 1, Target: time.Second})
	assert.NoError(t, err, "the default of Interval is no shorter")
}

// busy is a service of one worker, which requests leave one by one.
type busy struct {
	*admit.Shedder
	leave chan struct{}

	mu    sync.Mutex
	began []string // the paths of those that have been let in
}

func newBusy(t *testing.T, c admit.ShedderConfig) *busy {
	c.Max = 1
	b := &busy{Shedder: newShedder(t, c), leave: make(chan struct{})}
	t.Cleanup(func() { close(b.leave) })
	return b
}

func (b *busy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.began = append(b.began, r.URL.Path)
		b.mu.Unlock()
		<-b.leave
	})).ServeHTTP(w, r)
}

// come sends requests one after the other.
func (b *busy) come(requests ...*http.Request) (answers []<-chan int) {
	for _, r := range requests {
		answers = append(answers, send(b, r))
		synctest.Wait()
	}
	return answers
}

// finish lets n requests leave one after the other, and returns who has been let in.
func (b *busy) finish(n int) []string {
	for range n {
		b.leave <- struct{}{}
		synctest.Wait()
	}
	return b.began
}

func TestShedderLetsLaterPlansGoFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		plans, err := admit.NewPlans(admit.Plan{Name: "free"}, admit.Plan{Name: "pro"}, admit.Plan{Name: "enterprise"})
		require.NoError(t, err)
		logger, lines := logged()
		b := newBusy(t, admit.ShedderConfig{Plans: plans})
		h := (&admit.ErrorWriter{Logger: logger}).Wrap(b)
		var answers []<-chan int
		for _, r := range []*http.Request{
			as("first", "free"), get("/stranger"), as("none", ""), as("foreign", "other"), as("free", "free"), as("most", "enterprise"), as("pro", "pro"),
		} {
			answers = append(answers, send(h, r))
			synctest.Wait()
		}
		assert.Equal(t, []string{"/first", "/most", "/pro", "/free", "/stranger", "/none", "/foreign"}, b.finish(7))
		for _, answer := range answers {
			assert.Equal(t, http.StatusOK, <-answer)
		}
		for range 2 {
			allowed(t, (&admit.ErrorWriter{Logger: logger}).Wrap(b.Wrap(ok)), as("foreign", "other"))
		}
		assert.Equal(t, 1, strings.Count(lines.String(), "\n"), "once for each key")
		assert.Contains(t, lines.String(), `and waits last in the Shedder" admit.key.id=foreign admit.plan=other`)
		allowed(t, (&admit.ErrorWriter{Logger: logger}).Wrap(b.Wrap(ok)), as("foreign", "third"))
		assert.Equal(t, 2, strings.Count(lines.String(), "\n"), "and plan")
	})
}

func TestShedderPriority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{Priority: func(r *http.Request) int {
			n, _ := strconv.Atoi(r.Header.Get("Priority"))
			return n
		}})
		b.come(get("/first"), get("/low", "Priority", "-1"), get("/high", "Priority", "9"), get("/zero"))
		assert.Equal(t, []string{"/first", "/high", "/zero", "/low"}, b.finish(4))
	})
}

// Callers of one plan share: who has no place goes before who has one, and it does not help to
// ask for more.
func TestShedderSharesAmongCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder(t, admit.ShedderConfig{Max: 2})
		out := map[string]chan struct{}{"/greedy": make(chan struct{}), "/modest": make(chan struct{}), "": make(chan struct{})}
		var modest atomic.Int32
		h := s.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/modest" {
				modest.Add(1)
			}
			<-out[r.URL.Path]
		}))
		for range 10 {
			send(h, as("greedy", ""))
			synctest.Wait()
		}
		send(h, as("modest", ""))
		synctest.Wait()
		out["/greedy"] <- struct{}{}
		synctest.Wait()
		assert.Equal(t, int32(1), modest.Load(), "the last to come, with the fewest places")
		for _, c := range out {
			close(c)
		}
	})
}

// Nor does it help where there are more callers than places.
func TestShedderSharesFewPlacesAmongManyCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const callers, places, work, load, lasts = 20, 4, 10 * time.Millisecond, 5, 2 * time.Second
		var served [callers]atomic.Int32
		h := newShedder(t, admit.ShedderConfig{Max: places}).Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			i, _ := strconv.Atoi(r.URL.Path[1:])
			served[i].Add(1)
			time.Sleep(time.Duration(rand.ExpFloat64() * float64(work)))
		}))
		var all sync.WaitGroup
		for began := time.Now(); time.Since(began) < lasts; time.Sleep(time.Duration(rand.ExpFloat64() * float64(work) / places / load)) {
			caller := max(0, rand.IntN(callers+9)-9) // one sends ten times as much as each other
			all.Go(func() { status(h, as(strconv.Itoa(caller), "")) })
		}
		all.Wait()
		var sum, squares float64
		for i := range served {
			n := float64(served[i].Load())
			sum += n
			squares += n * n
		}
		assert.Greater(t, sum*sum/(callers*squares), 0.95, "Jain's index")
		assert.Greater(t, sum, 0.9*places*float64(lasts/work))
	})
}

func TestShedderBoundsTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{})
		began := time.Now()
		wait := func() time.Duration {
			began := time.Now()
			body, headers := refused(t, b, get("/"), http.StatusTooManyRequests)
			assert.Equal(t, "overloaded", body.Code)
			seconds, err := strconv.Atoi(headers.Get("Retry-After"))
			require.NoError(t, err)
			assert.GreaterOrEqual(t, seconds, 1)
			assert.EqualValues(t, seconds, body.RetryAfter)
			return time.Since(began)
		}
		b.come(get("/first"))
		assert.Equal(t, 100*time.Millisecond, wait(), "nobody was waiting")
		for range 3 {
			b.come(get("/"))
			time.Sleep(40 * time.Millisecond)
		}
		assert.Equal(t, 5*time.Millisecond, wait(), "somebody was, for all of the last 100 ms")
		time.Sleep(time.Since(began))
		assert.Equal(t, 100*time.Millisecond, wait(), "the queue was empty")
		assert.Equal(t, admit.ShedderStats{Running: 1, Max: 1, Admitted: 1, Shed: 6}, b.Stats())
	})
}

func TestShedderFullQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{MaxQueue: 2, Plans: newPlans(t)})
		answers := b.come(get("/"), get("/a"), get("/b"), as("pro", "pro"))
		assert.Equal(t, http.StatusTooManyRequests, <-answers[2], "the last of the order, at once")
		assert.Equal(t, []string{"/", "/pro", "/a"}, b.finish(3))
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{})
		answers := b.come(from("198.51.100.1:1"))
		for i := range 10 {
			answers = append(answers, b.come(from(fmt.Sprintf("192.0.2.%d:1", i)))...)
		}
		began := time.Now()
		refused(t, b, from("192.0.2.99:1"), http.StatusTooManyRequests)
		assert.Zero(t, time.Since(began), "ten times Max wait")
		b.finish(11)
		for _, answer := range answers {
			assert.Equal(t, http.StatusOK, <-answer)
		}
	})
}

// Clients that have left give up their wait, and a place that comes too late for them.
func TestShedderAndClientsThatAreGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{})
		ctx, leave := context.WithCancel(t.Context())
		b.come(get("/first"), get("/gone").WithContext(ctx), get("/stays"))
		leave()
		synctest.Wait()
		inUse(t, b, 1, 1, 1)
		ctx, leave = context.WithCancel(t.Context())
		b.come(get("/late").WithContext(ctx))
		go leave() // at the moment at which a place comes
		b.leave <- struct{}{}
		b.finish(1)
		assert.Contains(t, b.began, "/stays")
		if len(b.began) == 3 {
			b.finish(1)
		}
		inUse(t, b, 0, 0, 0)
		assert.Zero(t, b.Stats().Shed)
	})
}

// A place that comes for a client at the moment at which it has left goes to the next.
func TestShedderPassesOnThePlaceOfWhoHasJustLeft(t *testing.T) {
	t.Parallel()
	for range 50 { // the waiter may be faster than the place
		synctest.Test(t, func(t *testing.T) {
			s := newShedder(t, admit.ShedderConfig{Max: 1})
			ctx, leave := context.WithCancel(t.Context())
			out := make(chan struct{})
			first := send(s.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				<-out
				leave()
			})), get("/"))
			synctest.Wait()
			late := send(s.Wrap(ok), get("/").WithContext(ctx))
			synctest.Wait()
			stays := send(s.Wrap(ok), get("/"))
			synctest.Wait()
			close(out)
			<-first
			<-late
			assert.Equal(t, http.StatusOK, <-stays)
			inUse(t, s, 0, 0, 0)
		})
	}
}

// Who leaves is not refused: it has cost what it has cost.
func TestShedderDoesNotRefuseWhoHasLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{})
		b.come(get("/"))
		l := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(10)}})
		errs := &admit.ErrorWriter{Observe: func(_ *http.Request, e *admit.Error) { t.Errorf("refused: %v", e) }}
		for range 2 {
			ctx, leave := context.WithCancel(as("one", "").Context())
			left := send(errs.Wrap(l.Wrap(b)), get("/").WithContext(ctx))
			synctest.Wait()
			leave()
			<-left
		}
		d, err := l.Take(as("one", ""), 0)
		require.NoError(t, err)
		assert.Equal(t, 8, d.States[0].Remaining)
		inUse(t, b, 1, 0, 1)
		b.finish(1)
	})
}

func TestShedderSkip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{Skip: func(r *http.Request) bool { return r.URL.Path == "/healthz" }})
		b.come(get("/"))
		allowed(t, b.Wrap(ok), get("/healthz"))
		inUse(t, b, 1, 0, 1)
		b.finish(1)
	})
}

// What is refused here costs a caller nothing: of its key, or of what CountBy says. What is
// counted by address is counted.
func TestShedderRefundsLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never := func(int) bool { return false }
		tenant := func(r *http.Request) string { return r.Header.Get("Tenant") }
		b := newBusy(t, admit.ShedderConfig{})
		b.come(get("/"))
		for name, test := range map[string]struct {
			c       admit.LimiterConfig
			r       *http.Request
			around  admit.Middleware // between the Limiter and the Shedder
			refunds bool
		}{
			"by key":              {r: as("one", ""), refunds: true},
			"by address":          {r: get("/")},
			"by tenant":           {c: admit.LimiterConfig{CountBy: tenant}, r: get("/", "Tenant", "a"), refunds: true},
			"with Refund":         {c: admit.LimiterConfig{Refund: never}, r: as("one", ""), refunds: true},
			"address with Refund": {c: admit.LimiterConfig{Refund: never}, r: get("/")},
			"of all":              {c: admit.LimiterConfig{Refund: func(int) bool { return true }}, r: get("/"), refunds: true},
			"through a handler":   {r: as("one", ""), around: passing, refunds: true},
			"inside a Timeout":    {r: as("one", ""), around: admit.Timeout(time.Minute), refunds: true},
			"inside a Policy":     {r: as("one", ""), around: func(h http.Handler) http.Handler { return admit.Policy{Methods: []string{"GET"}}.Wrap(h) }, refunds: true},
			"one of a batch": {r: as("one", ""), around: func(h http.Handler) http.Handler {
				return inTurn(h, ok)
			}},
		} {
			c := test.c
			c.Limits = []admit.Limit{admit.PerDay(10)}
			c.Cost = func(*http.Request) int { return 3 }
			l := newLimiter(t, c)
			if test.around == nil {
				test.around = func(h http.Handler) http.Handler { return h }
			}
			h := l.Wrap(test.around(b))
			for range 2 {
				status(h, test.r)
			}
			left, err := l.Take(test.r, 0)
			require.NoError(t, err)
			want := 4
			if test.refunds {
				want = 10
			}
			assert.Equal(t, want, left.States[0].Remaining, name)
		}
		b.finish(1)
	})
}

// A request that a Limiter has let in for nothing is given nothing back.
func TestShedderRefundsOnlyWhatWasTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{})
		b.come(get("/"))
		l := newLimiter(t, admit.LimiterConfig{Limits: []admit.Limit{admit.PerDay(1)}, DryRun: true})
		_, err := l.Take(as("one", ""), 1)
		require.NoError(t, err)
		refused(t, l.Wrap(b), as("one", ""), http.StatusTooManyRequests)
		left, err := l.Take(as("one", ""), 0)
		require.NoError(t, err)
		assert.Zero(t, left.States[0].Remaining)
		b.finish(1)
	})
}

// Refused clients are told to come back over twice the time that is needed for all of them.
func TestShedderSpreadsRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder(t, admit.ShedderConfig{Max: 1, MaxQueue: 1})
		h := s.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(10 * time.Millisecond) }))
		seconds := map[int]int{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 4000 { // ten times as many as can be
			all.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, get("/"))
				if w.Code == http.StatusTooManyRequests && i > 2000 {
					n, _ := strconv.Atoi(w.Header().Get("Retry-After"))
					mu.Lock()
					seconds[n]++
					mu.Unlock()
				}
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		for n := range seconds {
			assert.LessOrEqual(t, n, 20)
		}
		for n := 2; n <= 18; n++ {
			assert.InDelta(t, 100, seconds[n], 70, "%d s", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBusy(t, admit.ShedderConfig{MaxQueue: 1})
		b.come(get("/"))
		seconds := map[int]int{}
		for range 1000 { // nothing becomes free
			b.come(get("/"))
			time.Sleep(10 * time.Millisecond)
			_, headers := refused(t, b, get("/"), http.StatusTooManyRequests)
			n, _ := strconv.Atoi(headers.Get("Retry-After"))
			seconds[n]++
			assert.LessOrEqual(t, n, 60)
		}
		for n := 2; n <= 60; n++ {
			assert.LessOrEqual(t, seconds[n], 60, "%d s: nor do they all come back at the end of the minute", n)
		}
		b.finish(1)
	})
	synctest.Test(t, func(t *testing.T) { // a burst after a calm, which all come at once
		s := newShedder(t, admit.ShedderConfig{Max: 1, MaxQueue: 1})
		for range 10_000 {
			allowed(t, s.Wrap(ok), get("/"))
		}
		g := newGate()
		first := send(s.Wrap(g), get("/"))
		seconds := map[int]int{}
		for range 100 {
			send(s.Wrap(g), from("192.0.2.9:1"))
			synctest.Wait()
			_, headers := refused(t, s.Wrap(ok), from("192.0.2.9:1"), http.StatusTooManyRequests)
			n, _ := strconv.Atoi(headers.Get("Retry-After"))
			seconds[n]++
		}
		assert.Len(t, seconds, 2, "%v", seconds)
		assert.InDelta(t, 50, seconds[2], 30)
		close(g.out)
		<-first
	})
}

func TestReleasePlace(t *testing.T) {
	t.Parallel()
	admit.ReleasePlace(get("/")) // there is none
	synctest.Test(t, func(t *testing.T) {
		outer, inner := newShedder(t, admit.ShedderConfig{Max: 2}), newShedder(t, admit.ShedderConfig{Max: 1})
		inFlight := newInFlight(t, admit.InFlightConfig{Max: 100})
		released, end := make(chan struct{}), make(chan struct{})
		stream := func(_ http.ResponseWriter, r *http.Request) {
			for range 2 {
				admit.ReleasePlace(r)
			}
			released <- struct{}{}
			<-end
		}
		for name, h := range map[string]http.Handler{
			"directly":           inner.Wrap(http.HandlerFunc(stream)),
			"a handler between":  inner.Wrap(passing(http.HandlerFunc(stream))),
			"inside a Timeout":   inner.Wrap(admit.Timeout(time.Hour)(http.HandlerFunc(stream))),
			"that it overruns":   inner.Wrap(admit.Timeout(time.Millisecond)(http.HandlerFunc(stream))),
			"around another one": inner.Wrap(passing(admit.MaxInFlight(99)(http.HandlerFunc(stream)))),
		} {
			h := inFlight.Wrap(outer.Wrap(h))
			var answers []<-chan int
			for range 10 { // idle streams hold nothing
				answers = append(answers, send(h, get("/")))
				<-released
			}
			synctest.Wait()
			inUse(t, outer, 0, 0, 0)
			inUse(t, inner, 0, 0, 0)
			running, _, _ := inFlight.InUse()
			assert.Equal(t, 10, running, name)
			began := time.Now()
			allowed(t, outer.Wrap(inner.Wrap(ok)), get("/"))
			assert.Zero(t, time.Since(began), name)
			for range answers {
				end <- struct{}{}
			}
			for _, answer := range answers {
				<-answer
			}
			synctest.Wait()
			inUse(t, outer, 0, 0, 0)
			inUse(t, inner, 0, 0, 0)
			inUse(t, inFlight, 0, 0, 0)
		}
	})
}

// A stream takes a place for each piece of work that it sends through the Shedder, as other
// requests do.
func TestStreamWithoutAPlaceTakesOneForItsWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder(t, admit.ShedderConfig{Max: 1})
		g := newGate()
		stream := s.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			allowed(t, s.Wrap(ok), r) // it has its place
			admit.ReleasePlace(r)
			first := send(s.Wrap(g), r)
			synctest.Wait()
			inUse(t, s, 1, 0, 1)
			refused(t, s.Wrap(ok), r, http.StatusTooManyRequests)
			close(g.out)
			<-first
			allowed(t, s.Wrap(s.Wrap(ok)), r)
			inUse(t, s, 0, 0, 0)
		}))
		allowed(t, stream, get("/"))
		inUse(t, s, 0, 0, 0)
	})
}

// A handler that gives its place up, and is refused or refuses then, gives nothing back twice.
func TestReleasePlaceAndRefusalsThatLinger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder(t, admit.ShedderConfig{Max: 1})
		h := s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("before") {
				admit.ReleasePlace(r)
			}
			admit.WriteError(w, r, admit.NewError(409, ""))
			admit.ReleasePlace(r)
		}))
		for _, path := range []string{"/", "/?before"} {
			c := servePipe(t, h)
			go func() {
				_, _ = io.WriteString(c.client, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
			}()
			synctest.Wait()
			inUse(t, s, 0, 0, 0)
			_, _ = answerOn(t, bufio.NewReader(c.client))
			_ = c.client.Close()
			time.Sleep(time.Minute)
			inUse(t, s, 0, 0, 0)
		}
	})
}

func TestReleasePlaceThatIsLent(t *testing.T) {
	t.Parallel()
	s := newShedder(t, admit.ShedderConfig{Max: 1})
	allowed(t, s.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reclaim := admit.LendPlaces(r.Context())
		admit.ReleasePlace(r)
		inUse(t, s, 0, 0, 0)
		reclaim()
		inUse(t, s, 0, 0, 0)
		admit.LendPlaces(r.Context())()
		inUse(t, s, 0, 0, 0)
	})), get("/"))
	inUse(t, s, 0, 0, 0)
}

// A hijacked connection holds no place, with and without a Timeout inside.
func TestShedderGivesThePlaceOfAHijackBack(t *testing.T) {
	t.Parallel()
	for name, inner := range map[string]admit.Middleware{"plain": passing, "Timeout": admit.Timeout(time.Minute)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShedder(t, admit.ShedderConfig{Max: 1})
			held, end := make(chan struct{}), make(chan struct{})
			server := serve(t, "HTTP/1.1", s.Wrap(inner(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if !assert.NoError(t, err) {
					return
				}
				held <- struct{}{}
				<-end
				_ = conn.Close()
			}))))
			for range 3 {
				go func() { _, _ = server.Client().Get(server.URL) }()
				<-held
			}
			inUse(t, s, 0, 0, 0)
			close(end)
		})
	}
}

func TestShedderUnderConcurrency(t *testing.T) {
	t.Parallel()
	storm(t, newShedder(t, admit.ShedderConfig{
		Max: 4, MaxQueue: 12, Target: time.Millisecond, Interval: 3 * time.Millisecond,
		Priority: func(r *http.Request) int { return len(r.RemoteAddr) % 2 },
	}), 4)
}

func TestShedderAllocations(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	w := newDiscard()
	s := newShedder(t, admit.ShedderConfig{Max: 1, Plans: newPlans(t)})
	for name, chain := range map[string]func(http.Handler) http.Handler{
		"by address": admit.RequestID,
		"by key":     newAuth(t, admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("good"): {ID: "one", Plan: "pro"}}}).Wrap,
		"InFlight":   func(h http.Handler) http.Handler { return admit.RequestID(admit.MaxInFlight(1)(h)) },
	} {
		with, without := chain(s.Wrap(ok)), chain(ok)
		r := get("/", "X-API-Key", "good")
		base := 0.0
		if !raceDetector {
			base = testing.AllocsPerRun(200, func() { without.ServeHTTP(w, r) })
		}
		t.Log(name)
		allocs(t, base, func() { with.ServeHTTP(w, r) })
	}
	assert.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
}

func TestShedderAnswersAKeyThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	s := newShedder(t, admit.ShedderConfig{Max: 1})
	logger, _ := logged()
	h := (&admit.ErrorWriter{Logger: logger}).Wrap(s.Wrap(ok))
	refused(t, h, as("", ""), http.StatusInternalServerError)
}

// Clients that send or take so slowly that their handlers wait take no place from others, with
// all that may stand around the handler.
func TestShedderLendsThePlaceOfWhoWaitsForItsClient(t *testing.T) {
	t.Parallel()
	chains := map[string]struct{ outside, inside admit.Middleware }{
		"alone": {},
		"bounds": {outside: admit.MaxBody(1 << 20), inside: func(h http.Handler) http.Handler {
			return admit.BodyTimeout{Grace: time.Minute}.Wrap(admit.WriteStall(time.Minute)(h))
		}},
		"Timeout":  {inside: admit.Timeout(time.Minute)},
		"handlers": {outside: passing, inside: passing},
		"all": {outside: admit.RequestID, inside: func(h http.Handler) http.Handler {
			return admit.Policy{MaxBody: 1 << 20, BodyTimeout: admit.BodyTimeout{Grace: time.Minute}, WriteStall: time.Minute, Timeout: time.Minute}.Wrap(h)
		}},
	}
	for _, wire := range wires {
		for name, chain := range chains {
			t.Run(wire+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newShedder(t, admit.ShedderConfig{Max: 1, Interval: 10 * time.Second})
				took := make(chan string, 1)
				h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/upload":
						body, err := io.ReadAll(r.Body)
						took <- fmt.Sprint(string(body), err)
					case "/download":
						for range 12 {
							_, _ = w.Write(make([]byte, 1<<20))
						}
					}
				}))
				if chain.inside != nil {
					h = chain.inside(h)
				}
				h = s.Wrap(h)
				if chain.outside != nil {
					h = chain.outside(h)
				}
				server := serve(t, wire, h)
				waitFor := func(running int) {
					t.Helper()
					assert.Eventually(t, func() bool { return s.Stats().Running == running }, 10*time.Second, time.Millisecond)
				}

				body, client := io.Pipe()
				uploaded := make(chan int)
				go func() {
					r, err := http.NewRequest("POST", server.URL+"/upload", body)
					assert.NoError(t, err)
					res, err := server.Client().Do(r)
					if assert.NoError(t, err) {
						_ = res.Body.Close()
						uploaded <- res.StatusCode
					}
				}()
				_, err := client.Write([]byte("slow"))
				require.NoError(t, err)
				assert.Eventually(t, func() bool { return s.Stats().Admitted == 1 }, 10*time.Second, time.Millisecond)
				waitFor(0)
				res, _ := do(t, server, "GET", "/", "")
				assert.Equal(t, http.StatusOK, res.StatusCode)
				_, err = client.Write([]byte("ly"))
				require.NoError(t, err)
				require.NoError(t, client.Close())
				assert.Equal(t, "slowly<nil>", <-took)
				assert.Equal(t, http.StatusOK, <-uploaded)
				waitFor(0)

				r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/download", nil)
				require.NoError(t, err)
				download, err := server.Client().Do(r)
				require.NoError(t, err)
				assert.Eventually(t, func() bool { return s.Stats().Admitted == 3 }, 10*time.Second, time.Millisecond)
				waitFor(0)
				res, _ = do(t, server, "GET", "/", "")
				assert.Equal(t, http.StatusOK, res.StatusCode)
				n, err := io.Copy(io.Discard, download.Body)
				require.NoError(t, err)
				assert.Equal(t, int64(12<<20), n)
				_ = download.Body.Close()
				waitFor(0)
				assert.Zero(t, s.Stats().Shed)
			})
		}
	}
}

// Over HTTP/1, Close reads what the client has still to send.
func TestShedderLendsThePlaceOfACloseThatWaits(t *testing.T) {
	t.Parallel()
	for name, inside := range map[string]admit.Middleware{"alone": passing, "BodyTimeout": admit.BodyTimeout{Grace: time.Minute}.Wrap} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newShedder(t, admit.ShedderConfig{Max: 1})
				c := servePipe(t, s.Wrap(inside(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					assert.NoError(t, r.Body.Close())
					assert.Equal(t, 1, s.Stats().Running)
				}))))
				_, err := io.WriteString(c.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
				require.NoError(t, err)
				time.Sleep(time.Second)
				inUse(t, s, 0, 0, 0)
				_, err = io.WriteString(c.client, "the body..")
				require.NoError(t, err)
				res, _ := answerOn(t, bufio.NewReader(c.client))
				assert.Equal(t, http.StatusOK, res.StatusCode)
				inUse(t, s, 0, 0, 0)
			})
		})
	}
}

// A client that keeps up lends nothing: no more than Max are inside.
func TestShedderKeepsThePlaceOfWhoDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShedder(t, admit.ShedderConfig{Max: 1, Interval: time.Second})
		var inside, most atomic.Int32
		h := s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			most.Store(max(most.Load(), inside.Add(1)))
			defer inside.Add(-1)
			_, _ = io.ReadAll(&paced{r.Body})
			for range 5 {
				_, _ = w.Write(make([]byte, 4096))
				time.Sleep(10 * time.Millisecond) // at work
			}
		}))
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { assert.Equal(t, http.StatusOK, status(h, newRequest("POST", "/", strings.Repeat("x", 100)))) })
		}
		all.Wait()
		assert.Equal(t, int32(1), most.Load())
		inUse(t, s, 0, 0, 0)
	})
}

// paced works between its Reads.
type paced struct{ io.Reader }

func (p *paced) Read(b []byte) (int, error) {
	time.Sleep(6 * time.Millisecond)
	return p.Reader.Read(b[:min(len(b), 30)])
}
