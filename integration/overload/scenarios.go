package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// scenario is a question: each of its admissions meets each of its cells, and each metric
// is a table, or a column where there is one cell.
type scenario struct {
	name, title, about string
	cells              []cell
	admissions         []admission
	metrics            []metric
	over               wire
}

type metric struct {
	name   string
	format string
	of     func(*run) float64
}

const (
	whole = "%.0f%%"
	tenth = "%.1f%%"
	ms    = "%.0f ms"
)

// spans are how long a load lasts before it is measured, and while it is.
type spans struct{ warm, measured time.Duration }

// The service that most scenarios have: 2,000 requests a second.
const (
	workers  = 20
	work     = 10 * time.Millisecond
	deadline = 100 * time.Millisecond
)

// alike are requests of one size from many callers.
var alike = mix{work, func(random *rand.Rand, _ float64) (int, time.Duration) { return random.IntN(len(callers)), work }}

// slower are fewer and larger ones, since a request over a socket costs more than its work.
var slower = mix{2 * work, func(random *rand.Rand, _ float64) (int, time.Duration) { return random.IntN(len(callers)), 2 * work }}

// uneven are many small requests and some large ones, which are most of the work.
var uneven = func() mix {
	const small, large, one = 2 * time.Millisecond, 100 * time.Millisecond, 10
	return mix{(small*(one-1) + large) / one, func(random *rand.Rand, _ float64) (int, time.Duration) {
		if random.IntN(one) == 0 {
			return random.IntN(len(callers)), large
		}
		return random.IntN(len(callers)), small
	}}
}()

// payingShare is how much of the capacity paying callers ask for; others send the rest.
const payingShare = 0.3

var plans = mix{work, func(random *rand.Rand, load float64) (int, time.Duration) {
	if random.Float64() < payingShare/load {
		return random.IntN(paying), work
	}
	return paying + random.IntN(len(callers)-paying), work
}}

func pays(a arrival) bool { return a.caller < paying }

// greedy are callers of one plan, of whom the first sends ten times what each other does.
const (
	greedyCallers = 10
	greed         = 10
)

var greedy = mix{work, func(random *rand.Rand, _ float64) (int, time.Duration) {
	return paying + max(0, random.IntN(greedyCallers-1+greed)-greed+1), work
}}

// steady is a load that stays.
func (t spans) steady(load float64, workers int, m mix, deadline time.Duration) cell {
	return cell{
		name: fmt.Sprintf("%g×", load), workers: workers, mix: m, deadline: deadline,
		phases: []phase{{lasts: t.warm + t.measured, load: load}}, from: t.warm, to: t.warm + t.measured,
	}
}

func (t spans) loads(workers int, m mix, deadline time.Duration, loads ...float64) (cells []cell) {
	for _, load := range loads {
		cells = append(cells, t.steady(load, workers, m, deadline))
	}
	return cells
}

// change is a load before, during and after; the middle is what is counted.
func (t spans) change(before, during, after phase) []cell {
	before.lasts, during.lasts, after.lasts = t.warm, t.measured, t.measured
	return []cell{{
		workers: workers, mix: alike, deadline: deadline,
		phases: []phase{before, during, after}, from: t.warm, to: t.warm + t.measured,
	}}
}

// sizes is one load on services of different sizes.
func (t spans) sizes(load float64, sizes ...int) (cells []cell) {
	for _, n := range sizes {
		c := t.steady(load, n, alike, deadline)
		c.name = fmt.Sprintf("%d workers", n)
		cells = append(cells, c)
	}
	return cells
}

// goodput is the work that was answered in time, of all that the workers can do then.
func goodput(r *run) float64 {
	able := float64(r.cell.workers) * (r.cell.to - r.cell.from).Seconds()
	for _, p := range r.cell.phases {
		able /= float64(max(1, p.slower)) // only one phase is slow: that which is counted
	}
	return percent(r.counted(all).done.Seconds(), able)
}

func refused(r *run) float64 { t := r.counted(all); return percent(t.refused, t.sent) }

func median(r *run) float64 { return quantile(r.counted(all).took, 0.5) }

func tail(r *run) float64 { return quantile(r.counted(all).took, 0.99) }

func refusalTail(r *run) float64 { return quantile(r.counted(all).refusals, 0.99) }

// payingGood is how many of the paying requests were answered in time.
func payingGood(r *run) float64 { t := r.counted(pays); return percent(t.good, t.sent) }

func payingTail(r *run) float64 { return quantile(r.counted(pays).took, 0.99) }

// shares are the work that was done for each of the callers, and that they asked for.
func shares(r *run) (done, asked []float64) {
	for i := range greedyCallers {
		t := r.counted(func(a arrival) bool { return a.caller == paying+i })
		done, asked = append(done, t.done.Seconds()), append(asked, t.asked.Seconds())
	}
	return done, asked
}

// jain is 1 if all callers get the same, and the less the less equal it is.
func jain(r *run) float64 {
	done, _ := shares(r)
	var sum, squares float64
	for _, x := range done {
		sum, squares = sum+x, squares+x*x
	}
	return sum * sum / (float64(len(done)) * squares)
}

// worst is what that caller got who got least of what it asked for; the greedy one does not
// count.
func worst(r *run) float64 {
	done, asked := shares(r)
	least := 100.0
	for i := 1; i < len(done); i++ {
		least = min(least, percent(done[i], asked[i]))
	}
	return least
}

// fairShare is what each other caller would get of what it asks for if all got the same.
func fairShare(load float64) float64 {
	return min(100, 100*(greedyCallers-1+greed)/(greedyCallers*load))
}

// refusedLater counts the refusals of those that came more than a second after the change
// was over.
func refusedLater(r *run) float64 {
	from, to := r.cell.phase(2)
	return float64(r.tally(from+time.Second, to, all).refused)
}

func failedLater(r *run) float64 {
	from, to := r.cell.phase(2)
	t := r.tally(from+time.Second, to, all)
	return float64(t.sent - t.good)
}

// recovered is how long after the change the last came that was not answered in time.
func recovered(r *run) float64 {
	from, to := r.cell.phase(2)
	if t := r.tally(from, to, all); t.good < t.sent {
		return (t.last - from).Seconds()
	}
	return 0
}

// firstSecond is the goodput of the first second of the counted time.
func firstSecond(r *run) float64 {
	short := *r
	short.cell.to = short.cell.from + time.Second
	return goodput(&short)
}

func scenarios(t spans) []scenario {
	usual := []metric{
		{"Answered in time, of capacity", whole, goodput},
		{"Refused, of what came", tenth, refused},
		{"p50 of what was answered in time", ms, median},
		{"p99 of what was answered in time", ms, tail},
		{"p99 of refusals", "%.1f ms", refusalTail},
	}
	after := []metric{
		{"refused later than 1 s after", "%.0f", refusedLater},
		{"not answered in time later than 1 s after", "%.0f", failedLater},
		{"the last of them after", "%.1f s", recovered},
	}
	shedders := []admission{shedder(size{times: 1}), shedder(size{times: 2}), shedder(size{times: 4}), shedder(size{times: 8})}
	with := func(some ...admission) []admission { return append(some, shedders...) }
	return []scenario{
		{
			name: "load", title: "From too little to far too much", over: inProcess,
			about: "20 workers, requests of 10 ms of work, clients that leave after 100 ms.",
			cells: t.loads(workers, alike, deadline, 0.6, 0.7, 1, 2, 5, 10),
			admissions: with(
				without(true), without(false), maxInFlight(size{times: 0.2}), maxInFlight(size{times: 1}), maxInFlight(size{times: 5}), maxInFlight(size{times: 25}),
				inFlightQueue(), failsafeDefault(), failsafeFrom(size{times: 0.2}), failsafeFrom(size{times: 25}), failsafeQueue(),
			),
			metrics: usual,
		},
		{
			name: "sizes", title: "Services of other sizes", over: inProcess,
			about: "The same at 3 times the capacity of 4, 20 and 100 workers. What is configured stays, as when a service gets another machine.",
			cells: t.sizes(3, 4, 20, 100),
			admissions: []admission{
				maxInFlight(size{fixed: 100}), failsafeDefault(), failsafeQueue(),
				shedder(size{fixed: 40}), shedder(size{fixed: 100}), shedder(size{times: 2}),
			},
			metrics: usual[:2],
		},
		{
			name: "mixed", title: "Requests of different sizes", over: inProcess,
			about:      "20 workers; nine requests in ten are 2 ms of work, one is 100 ms; clients leave after 300 ms. What is answered in time is counted as work, so that who refuses the large ones gains nothing.",
			cells:      t.loads(workers, uneven, 300*time.Millisecond, 0.7, 3),
			admissions: with(without(true), maxInFlight(size{times: 1}), maxInFlight(size{times: 5}), inFlightQueue(), failsafeDefault(), failsafeQueue()),
			metrics:    usual,
		},
		{
			name: "dependency", title: "A dependency that becomes slow", over: inProcess,
			about:      "20 workers at 0.7 times their capacity; then each request takes three times as long, which is 2.1 times what fits, then no longer than before.",
			cells:      t.change(phase{load: 0.7}, phase{load: 0.7, slower: 3}, phase{load: 0.7}),
			admissions: with(without(true), without(false), maxInFlight(size{times: 5}), inFlightQueue(), failsafeDefault(), failsafeQueue()),
			metrics: append([]metric{
				{"answered in time while it is slow, of what fits then", whole, goodput},
				{"p99 then", ms, tail},
			}, after...),
		},
		{
			name: "burst", title: "A load that comes and goes", over: inProcess,
			about:      "20 workers at 0.5 times their capacity, then 5 times, then 0.5.",
			cells:      t.change(phase{load: 0.5}, phase{load: 5}, phase{load: 0.5}),
			admissions: with(without(true), without(false), maxInFlight(size{times: 1}), maxInFlight(size{times: 5}), inFlightQueue(), failsafeDefault(), failsafeQueue()),
			metrics: append([]metric{
				{"answered in time at 5×, of capacity", whole, goodput},
				{"in the first second of it", whole, firstSecond},
			}, after...),
		},
		{
			name: "plans", title: "Callers who pay", over: inProcess,
			about:      fmt.Sprintf("20 workers; callers of plan pro ask for %g%% of the capacity, those of plan free for the rest of the load.", 100*payingShare),
			cells:      t.loads(workers, plans, deadline, 2, 5, 10),
			admissions: with(maxInFlight(size{times: 5}), inFlightQueue(), failsafeDefault(), failsafePlans()),
			metrics: []metric{
				{"Paying requests answered in time", "%.2f%%", payingGood},
				{"p99 of these", ms, payingTail},
				{"All answered in time, of capacity", whole, goodput},
			},
		},
		{
			name: "callers", title: "A greedy caller", over: inProcess,
			about: fmt.Sprintf("20 workers; of %d callers of one plan, one sends %d times what each other does. If all got the same, each other one would get %.0f%% of what it asks for at 2×, and %.0f%% at 5×.",
				greedyCallers, greed, fairShare(2), fairShare(5)),
			cells:      t.loads(workers, greedy, deadline, 2, 5),
			admissions: with(maxInFlight(size{times: 5}), inFlightQueue(), failsafeDefault(), failsafePlans(), failsafeUsage()),
			metrics: []metric{
				{"Jain's index of what the callers got", "%.3f", jain},
				{"The least that another caller got, of what it asked for", whole, worst},
				{"All answered in time, of capacity", whole, goodput},
			},
		},
		{
			name: "sockets", title: "Over sockets", over: overSockets,
			about:      "10 workers, requests of 20 ms of work, clients that leave after 200 ms; HTTP/1.1, connections are kept.",
			cells:      t.loads(10, slower, 2*deadline, 2, 5),
			admissions: []admission{without(true), maxInFlight(size{times: 5}), inFlightQueue(), failsafeDefault(), shedder(size{times: 1}), shedder(size{times: 2}), shedder(size{times: 4})},
			metrics:    usual,
		},
	}
}
