package main

import (
	"context"
	"encoding/xml"
	"flag"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Gaps between arrivals are exponential, of the mean that the load asks for, and what came
// in one time says nothing of the next.
func TestArrivalsArePoisson(t *testing.T) {
	t.Parallel()
	c := cell{workers: workers, mix: alike, phases: []phase{{lasts: 20 * time.Second, load: 2}, {lasts: 10 * time.Second, load: 0.5}}}
	all := c.arrivals(7)
	assert.Equal(t, all, c.arrivals(7), "the same for every admission")
	assert.NotEqual(t, all[:100], c.arrivals(8)[:100])

	counts := make([]float64, 30_000) // in each millisecond
	var gaps []float64
	for i, a := range all {
		counts[a.at.Milliseconds()]++
		if i > 0 && a.at < 20*time.Second {
			require.GreaterOrEqual(t, a.at, all[i-1].at)
			gaps = append(gaps, (a.at - all[i-1].at).Seconds())
		}
	}
	mean, deviation := moments(gaps)
	assert.InEpsilon(t, 1/4000.0, mean, 0.02)
	assert.InEpsilon(t, mean, deviation, 0.02)
	mean, deviation = moments(counts[:20_000])
	assert.InEpsilon(t, 4, mean, 0.02)
	assert.InEpsilon(t, 2, deviation, 0.02)
	var together float64
	for i := range 19_999 {
		together += (counts[i] - mean) * (counts[i+1] - mean)
	}
	assert.Less(t, math.Abs(together/19_999/(deviation*deviation)), 0.03)
	mean, _ = moments(counts[20_000:])
	assert.InEpsilon(t, 1, mean, 0.05)
}

func moments(values []float64) (mean, deviation float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		deviation += (v - mean) * (v - mean) / float64(len(values))
	}
	return mean, math.Sqrt(deviation)
}

// Each mix asks for the mean work that the capacity is computed from, and each caller for
// the share that the scenario speaks of.
func TestMixes(t *testing.T) {
	t.Parallel()
	for _, m := range []mix{alike, slower, uneven, plans, greedy} {
		c := cell{workers: workers, mix: m, deadline: time.Second, phases: []phase{{lasts: 20 * time.Second, load: 2}}, to: 20 * time.Second}
		r := &run{cell: c, arrivals: c.arrivals(3)}
		r.answers = make([]answer, len(r.arrivals))
		asked := r.counted(all).asked.Seconds() / (20 * workers)
		assert.InEpsilon(t, 2, asked, 0.04)
		perCaller := map[int]float64{}
		for _, a := range r.arrivals {
			perCaller[a.caller] += a.work.Seconds() / (20 * workers)
		}
		switch len(perCaller) {
		case greedyCallers:
			assert.InEpsilon(t, 2.0*greed/(greedyCallers-1+greed), perCaller[paying], 0.04)
			assert.InEpsilon(t, 2.0/(greedyCallers-1+greed), perCaller[paying+greedyCallers-1], 0.1)
		default:
			assert.Len(t, perCaller, len(callers))
		}
	}
	c := cell{workers: workers, mix: plans, phases: []phase{{lasts: 20 * time.Second, load: 5}}, to: 20 * time.Second}
	r := &run{cell: c, arrivals: c.arrivals(3)}
	r.answers = make([]answer, len(r.arrivals))
	assert.InEpsilon(t, payingShare, r.counted(pays).asked.Seconds()/(20*workers), 0.04)
}

// Requests go out at their time though none is answered, and clients leave at theirs.
func TestDriveIsOpenLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := cell{workers: workers, mix: alike, phases: []phase{{lasts: time.Second, load: 1}}}
		var ended atomic.Int64
		begin := time.Now()
		arrivals := c.arrivals(1)
		answers := drive(arrivals, deadline, func(ctx context.Context, a arrival) int {
			assert.Equal(t, a.at, time.Since(begin))
			<-ctx.Done()
			assert.Equal(t, context.Canceled, ctx.Err())
			return 0
		}, func() { ended.Store(int64(time.Since(begin))) })
		synctest.Wait()
		assert.Equal(t, arrivals[len(arrivals)-1].at+deadline, time.Duration(ended.Load()))
		for _, a := range answers {
			require.Equal(t, answer{took: deadline}, a)
		}
	})
}

// A request that is sent late is late for its client, too.
func TestTimesCountFromWhenARequestWasDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		answers := drive([]arrival{{at: -30 * time.Millisecond}}, deadline, func(context.Context, arrival) int {
			time.Sleep(40 * time.Millisecond)
			return 200
		}, func() {})
		assert.Equal(t, []answer{{late: 30 * time.Millisecond, took: 70 * time.Millisecond, status: 200}}, answers)
	})
}

func measureIn(t *testing.T, c cell, a admission) (r *run) {
	synctest.Test(t, func(t *testing.T) {
		var err error
		r, err = c.measure(a, inProcess)
		require.NoError(t, err)
		for _, got := range r.answers {
			require.Zero(t, got.late)
		}
	})
	return r
}

// The service does what it is said to do, and no more: with all the time in the world
// everything is answered, at the rate of the capacity.
func TestServiceHasItsCapacity(t *testing.T) {
	t.Parallel()
	c := spans{0, 2 * time.Second}.steady(2, workers, alike, time.Minute)
	r := measureIn(t, c, without(true))
	took := r.counted(all).took
	require.Len(t, took, len(r.arrivals))
	last := r.arrivals[len(r.arrivals)-1].at + took[len(took)-1]
	assert.InDelta(t, float64(len(took))/c.capacity(), last.Seconds(), 0.02)

	slow := spans{time.Second, time.Second}.change(phase{load: 0.1}, phase{load: 0.1, slower: 3}, phase{load: 0.1})[0]
	r = measureIn(t, slow, without(true))
	assert.Equal(t, 30.0, median(r))
	assert.InDelta(t, 30, goodput(r), 6, "of a third of the capacity")
}

// What a timer has been late is taken off the next request.
func TestWorkerKeepsItsRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		w := worker{debt: 13 * time.Millisecond}
		w.do(10 * time.Millisecond)
		assert.Zero(t, time.Since(begin))
		assert.Equal(t, 3*time.Millisecond, w.debt)
		w.do(10 * time.Millisecond)
		assert.Equal(t, 7*time.Millisecond, time.Since(begin))
		assert.Zero(t, w.debt)
	})
}

// On a clock that nothing disturbs, the figures are what can be computed.
func TestFigures(t *testing.T) {
	t.Parallel()
	two := spans{200 * time.Millisecond, time.Second}.steady(2, workers, alike, deadline)
	for _, tt := range []struct {
		a                admission
		good, refused    float64
		within, tailFrom float64
	}{
		{a: without(true), good: 0, within: 5},
		{a: without(false), good: 0, within: 5},
		{a: maxInFlight(size{times: 0.2}), good: 20, refused: 90, within: 3},
		{a: maxInFlight(size{fixed: 4}), good: 20, refused: 90, within: 3},
		{a: maxInFlight(size{times: 5}), good: 100, refused: 50, within: 3, tailFrom: 50},
		{a: maxInFlight(size{times: 25}), good: 0, within: 5},
		{a: inFlightQueue(), good: 100, refused: 50, within: 3, tailFrom: 50},
	} {
		r := measureIn(t, two, tt.a)
		assert.InDelta(t, tt.good, goodput(r), tt.within, tt.a.name)
		assert.InDelta(t, tt.refused, refused(r), tt.within, tt.a.name)
		if tt.tailFrom > 0 {
			assert.InDelta(t, tt.tailFrom, tail(r), 15, tt.a.name)
		}
	}
}

func TestJain(t *testing.T) {
	t.Parallel()
	r := &run{cell: cell{workers: workers, deadline: deadline, to: time.Second}}
	for i := range greedyCallers {
		for range 2 {
			r.arrivals = append(r.arrivals, arrival{caller: paying + i, work: work})
			r.answers = append(r.answers, answer{status: 200})
		}
	}
	assert.InDelta(t, 1, jain(r), 1e-9)
	assert.InDelta(t, 100, worst(r), 1e-9)
	for i := range r.answers[3:] {
		r.answers[3+i].status = 429
	}
	assert.InDelta(t, 0.18, jain(r), 1e-9, "two of ten, one with half")
	assert.Zero(t, worst(r))
	assert.InDelta(t, 95, fairShare(2), 1e-9)
	assert.InDelta(t, 100, fairShare(1), 1e-9)
}

// The report has a row for every admission of every scenario, and the plots are XML.
func TestReport(t *testing.T) {
	t.Parallel()
	short := spans{20 * time.Millisecond, 50 * time.Millisecond}
	var results []*result
	for _, s := range scenarios(short) {
		if raced { // which the usage tracker of failsafe-go 0.9.8 does not bear
			s.admissions = slices.DeleteFunc(s.admissions, func(a admission) bool { return a.name == failsafeUsage().name })
		}
		if s.name == "sockets" {
			s.over = func(http.Handler) (func(context.Context, arrival) int, func(), error) {
				return func(context.Context, arrival) int { return 200 }, func() {}, nil
			}
		}
		synctest.Test(t, func(t *testing.T) {
			var said strings.Builder
			r, err := s.measure(t.Context(), func(string, ...any) { said.WriteByte('\n') })
			require.NoError(t, err)
			assert.Equal(t, len(s.admissions)*len(s.cells), said.Len())
			results = append(results, r)
		})
	}
	results[0].late[0][0] = tooLate + 1

	dir := t.TempDir()
	require.NoError(t, write(dir, short, results, []cost{{admission: without(true), ns: 1000, allocs: 4}, {admission: shedder(size{times: 1}), ns: 1150, allocs: 4}}))
	page, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	require.NoError(t, err)
	for _, r := range results {
		_, part, found := strings.Cut(string(page), "\n## "+r.title+"\n")
		require.True(t, found, r.name)
		part, _, _ = strings.Cut(part, "\n## ")
		tables := strings.Count(part, "\n|---|")
		for _, a := range r.admissions {
			assert.Equal(t, tables, strings.Count(part, "\n| "+a.name+" | "), "%s, %s", r.name, a.name)
		}
	}
	assert.Contains(t, string(page), "% † |")
	assert.Contains(t, string(page), "\n| Shedder 1× | 1150 | 150 | 4 | 0 |\n")
	assert.Regexp(t, `(?m)^\d+ × .*, .*/.*, go1\..*; github.com/failsafe-go/failsafe-go v0\.`, string(page))
	for _, name := range []string{goodputFile, payingFile} {
		assert.Contains(t, string(page), "("+name+")")
		drawing, err := os.Open(filepath.Join(dir, name))
		require.NoError(t, err)
		defer drawing.Close()
		for decoder := xml.NewDecoder(drawing); ; {
			if _, err := decoder.Token(); err == io.EOF {
				break
			} else {
				require.NoError(t, err)
			}
		}
	}
}

// Over sockets requests are answered and refused as in process, and clients that leave are
// seen to leave.
func TestOverSockets(t *testing.T) {
	t.Parallel()
	c := spans{0, 300 * time.Millisecond}.steady(0.5, 4, slower, 10*time.Second)
	r, err := c.measure(without(true), overSockets)
	require.NoError(t, err)
	assert.Equal(t, len(r.arrivals), r.counted(all).good)

	c.phases[0].load = 10
	r, err = c.measure(maxInFlight(size{times: 0.25}), overSockets)
	require.NoError(t, err)
	got := r.counted(all)
	assert.Equal(t, len(r.arrivals), got.good+got.refused)
	assert.Positive(t, got.refused)

	left := make(chan struct{})
	send, end, err := overSockets(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(left)
	}))
	require.NoError(t, err)
	defer end()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	assert.Zero(t, send(ctx, arrival{}))
	<-left
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, wrong := range [][]string{{"-only", "nothing"}, {"-only", "load", "-out", t.TempDir()}, {"more"}} {
		assert.Error(t, command(t.Context(), wrong, io.Discard), wrong)
	}
	_, err := choose(scenarios(spans{}), "plans,lots")
	assert.EqualError(t, err, `there is no scenario "lots", but load, sizes, mixed, dependency, burst, plans, callers, sockets`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, command(ctx, nil, io.Discard), context.Canceled)
}

// What the doc of Shedder says of places from one to eight times the workers.
// Every admission lets in a request that is alone, and a Shedder allocates nothing for it.
func TestCosts(t *testing.T) {
	require.NoError(t, flag.Set("test.benchtime", "10x"))
	all, err := costs(t.Context())
	require.NoError(t, err)
	assert.Len(t, all, 4)
	for _, c := range all {
		if strings.HasPrefix(c.name, "Shedder") && !raced {
			assert.Equal(t, all[0].allocs, c.allocs)
		}
	}
}

// notRaced leaves out figures that are the same with the race detector, and take long with it.
func notRaced(t *testing.T) {
	t.Helper()
	if raced {
		t.Skip("the same as without the race detector")
	}
}

func TestShedderKeepsTheServiceAtWork(t *testing.T) {
	t.Parallel()
	notRaced(t)
	short := spans{200 * time.Millisecond, 800 * time.Millisecond}
	for _, times := range []float64{1, 8} {
		a := shedder(size{times: times})
		for _, load := range []float64{2, 5, 10} {
			r := measureIn(t, short.steady(load, workers, alike, deadline), a)
			assert.GreaterOrEqual(t, goodput(r), 90.0, "%s at %v", a.name, load)
		}
		for _, m := range []mix{alike, uneven} {
			r := measureIn(t, short.steady(0.7, workers, m, 3*deadline), a)
			assert.Zero(t, refused(r), "%s, %v", a.name, m.mean)
			assert.Equal(t, r.counted(all).sent, r.counted(all).good, "%s, %v", a.name, m.mean)
		}
	}
}

func TestShedderLetsPayingRequestsIn(t *testing.T) {
	t.Parallel()
	notRaced(t)
	for _, times := range []float64{1, 8} {
		r := measureIn(t, spans{200 * time.Millisecond, 800 * time.Millisecond}.steady(5, workers, plans, deadline), shedder(size{times: times}))
		assert.GreaterOrEqual(t, payingGood(r), 99.9, times)
		assert.GreaterOrEqual(t, goodput(r), 90.0, times)
	}
}

func TestShedderRefusesNobodyAfterABurst(t *testing.T) {
	t.Parallel()
	notRaced(t)
	c := spans{200 * time.Millisecond, 1200 * time.Millisecond}.change(phase{load: 0.5}, phase{load: 5}, phase{load: 0.5})[0]
	for _, times := range []float64{1, 8} {
		r := measureIn(t, c, shedder(size{times: times}))
		assert.Positive(t, refused(r), times)
		assert.Zero(t, failedLater(r), times)
		assert.Less(t, recovered(r), 0.5, times)
	}
}

func TestShedderIsFairToCallers(t *testing.T) {
	t.Parallel()
	notRaced(t)
	for _, times := range []float64{1, 2, 4, 8} {
		for _, load := range []float64{2, 5} {
			r := measureIn(t, spans{300 * time.Millisecond, time.Second}.steady(load, workers, greedy, deadline), shedder(size{times: times}))
			assert.GreaterOrEqual(t, jain(r), 0.95, "%v× at %v", times, load)
			assert.GreaterOrEqual(t, goodput(r), 90.0, "%v× at %v", times, load)
		}
	}
}
