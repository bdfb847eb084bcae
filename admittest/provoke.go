package admittest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/published"
)

// Credentials are what Provoke cannot know by itself. All of them may be left out: rows that
// need one are not reached then, and AllReached says what to give.
type Credentials struct {
	// Keys is the store of the service's Auth, where that is a KeyMap. Provoke puts the keys
	// that it needs into it, with the scopes and plans that the policies ask for, and takes
	// them out again. No other request may come meanwhile.
	Keys admit.KeyMap
	// Sign makes r a request of a caller like key, for an Identity, such as a JWT with the
	// Scopes and the Plan of the key, and for an Auth with another store than a KeyMap. A caller
	// that has the Limits, Quotas and Networks of the key too lets more rows be reached. It is
	// called by one goroutine at a time.
	Sign func(r *http.Request, key *admit.Key)
	// Values stand in the path for the wildcards of patterns, by name. Without one it is
	// admittest.
	Values map[string]string
	// OtherStores lets Provoke send requests to routes whose keys, limits or quotas are in a
	// store that other processes may share. It asks that store for keys that nobody has, and
	// uses up limits and quotas of callers and addresses that nobody else is.
	OtherStores bool
	// Patience is the longest that Provoke waits for one answer, of a slow body or a slow
	// handler. 0: 10 s. In a bubble of testing/synctest waiting takes no time.
	Patience time.Duration
}

// Provoke makes a request for each row that admit itself can answer and that no answer has had
// so far: without a key, with a bad one, with a method, a media type or a body that is not
// taken, beyond a limit, without the scope or the plan, with a body that stalls, during
// maintenance, and so on. What it does not reach AllReached says, with the reason.
//
// The requests are made in this process, each from an address of its own. Those that wait do so
// side by side, and the log of the test says for how long at most; in a bubble of
// testing/synctest that takes no time. No goroutine is left.
//
// On routes of Handle, others stand in for the handlers, also to panic and to be slow. The
// service's own handlers run for those rows alone that they are to answer themselves, such as
// those of Decodes, with bodies that no handler should take; on routes of Declare they run for
// other rows too. A Maintenance is on for one request at a time, and others that come then are
// refused as well; at the end it is as it was before. After 1,000 requests Provoke gives a row up.
func (c *Contract) Provoke(with Credentials) {
	c.t.Helper()
	with.Patience = cmp.Or(with.Patience, 10*time.Second)
	all := published.Routes(c.api)
	p := &provoker{Contract: c, with: with, run: strconv.FormatUint(rand.Uint64(), 36), outer: all[0], routes: all[1:], tokens: make(map[string]string)}
	defer p.addKeys()()
	defer p.endMaintenance()()
	jobs := p.jobs()
	for when := atOnce; when < phases; when++ {
		p.provoke(when, jobs)
	}
}

// provoker is one run of Provoke.
type provoker struct {
	*Contract
	with      Credentials
	run       string // tells its callers from those of other runs
	outer     published.Route
	routes    []published.Route
	tokens    map[string]string // of Credentials.Keys, by the ID of the key
	addresses atomic.Uint32     // that have been given out
	signing   sync.Mutex
	signed    int // callers of Sign so far, by signing
}

// endMaintenance switches every Maintenance off, and returns what switches it back.
func (p *provoker) endMaintenance() (restore func()) {
	before := make(map[any]*time.Time)
	for _, route := range p.all() {
		if m := route.Chain.Maintenance; m != nil {
			if _, off := before[m]; !off {
				before[m] = published.SwitchMaintenance(m, nil)
			}
		}
	}
	return func() {
		for m, until := range before {
			published.SwitchMaintenance(m, until)
		}
	}
}

// job is a way to reach a row.
type job struct {
	at    row
	route published.Route
	attempt
}

// provoke does the jobs of a phase: side by side, where they wait.
func (p *provoker) provoke(when phase, jobs []job) {
	jobs = slices.DeleteFunc(slices.Clone(jobs), func(j job) bool { return j.when != when })
	if when != waiting {
		for _, j := range jobs {
			p.try(j)
		}
		return
	}
	var longest time.Duration
	for _, j := range jobs {
		longest = max(longest, j.takes(j.route.Chain))
	}
	if longest > 0 {
		p.t.Logf("admittest: Provoke waits for %d answers, each for up to %v, %d at a time", len(jobs), min(longest, p.with.Patience), p.places())
	}
	places := make(chan struct{}, p.places())
	var all sync.WaitGroup
	for _, j := range jobs {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			p.try(j)
		})
	}
	all.Wait()
}

// places is how many requests may wait at once without being refused for it.
func (p *provoker) places() int {
	places := 100
	for _, route := range p.all() {
		for _, most := range []int{route.Chain.InFlight.Max, route.Chain.Shedder.Max} {
			if most > 0 {
				places = min(places, most)
			}
		}
	}
	return places
}

func (p *provoker) jobs() []job {
	var jobs []job
	for _, route := range p.all() {
		for _, r := range route.Rows {
			p.because(rowOf(r), unknown(r)) // until one of the jobs knows better
			for _, a := range attempts {
				if a.status == r.Status && slices.Contains(a.fields, r.Field) {
					jobs = append(jobs, job{rowOf(r), route, a})
				}
			}
		}
	}
	return jobs
}

// all returns the outer Policy and the routes.
func (p *provoker) all() []published.Route { return append([]published.Route{p.outer}, p.routes...) }

// unknown says why there is no way to reach a row.
func unknown(r published.Row) string {
	switch {
	case r.Field == "handler":
		return "it is the service's own; make a request that is answered so"
	case r.Status == http.StatusServiceUnavailable:
		return "it needs a store that fails; give the service one in a test, and make a request"
	default:
		return "Provoke knows no request for it; make one"
	}
}

// because notes why a row has not been reached.
func (p *provoker) because(at row, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reasons[at] = reason
}

func (p *provoker) isReached(at row) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reached[at]
}

// try sends the requests of a job until the row is reached, to wherever it might be.
func (p *provoker) try(j job) {
	for _, to := range p.targets(j) {
		if p.isReached(j.at) {
			return
		}
		if reason := p.forbids(j, to); reason != "" {
			p.because(j.at, reason)
			continue
		}
		q, n := p.prepare(j, to, ""), 1
		if q == nil {
			p.because(j.at, "no request of Provoke's is answered so here; make one")
			continue
		}
		switch {
		case q.crowd.size > mostRequests || q.times > mostRequests:
			p.because(j.at, fmt.Sprintf("it takes more than %d requests; make them", mostRequests))
			continue
		case q.crowd.size > 0:
			q = p.sendTogether(j, to, q)
		default:
			p.send(q, func() {})
			for ; n < q.times && !p.isReached(j.at); n++ {
				next := p.prepare(j, to, q.RemoteAddr)
				p.send(next, func() {})
				q.status, q.code = next.status, next.code
			}
		}
		p.because(j.at, p.explain(j.at, q, n))
	}
}

// mostRequests are as many as Provoke makes for one row.
const mostRequests = 1000

// targets are where the answer of a row may be had. One of the outer Policy is had before the
// mux, unless it takes a handler.
func (p *provoker) targets(j job) []target {
	if j.at.route != "" {
		return []target{{route: j.route}}
	}
	all := []target{{route: p.outer}}
	for _, r := range p.routes {
		switch {
		case j.handler:
			all = append(all, target{route: r})
		case j.otherMethod && r.Method != "":
			all = append(all, target{route: p.outer, path: p.pathOf(r)})
		}
	}
	if j.otherMethod {
		all = append(all, target{route: p.outer, path: "/"}) // where the page of the contract may be
	}
	return all
}

// forbids says why a job must not be done.
func (p *provoker) forbids(j job, to target) string {
	if !p.with.OtherStores {
		for _, c := range []published.Chain{p.outer.Chain, to.route.Chain} {
			if c.Outside {
				return "its keys are in a store that others may share; set Credentials.OtherStores if that is made for tests"
			}
			if slices.ContainsFunc(c.Limits, func(l published.Limits) bool { return l.Store }) {
				return "its limits are in a store that others may share; set Credentials.OtherStores if that is made for tests"
			}
			if slices.ContainsFunc(c.Quotas, func(q published.Quotas) bool { return q.Store }) {
				return "its quotas are in a store that others may share; set Credentials.OtherStores if that is made for tests"
			}
		}
	}
	if j.takes != nil {
		if d := j.takes(j.route.Chain); d > p.with.Patience {
			return fmt.Sprintf("it takes %v; set Credentials.Patience, or call Provoke in a bubble of testing/synctest, where that takes no time", d)
		}
	}
	return ""
}

// prepare returns the request of a job, signed, or nil if there is none. It comes from the
// address, unless that is empty.
func (p *provoker) prepare(j job, to target, address string) *exchange {
	q := p.exchange(to)
	if address != "" {
		q.RemoteAddr = address
	}
	if !j.change(q) {
		return nil
	}
	p.signing.Lock()
	defer p.signing.Unlock()
	p.sign(q)
	return q
}

// sendTogether sends as many requests as cannot all be let in, and keeps those that are let in
// from being answered until one has been refused. It returns one that was.
func (p *provoker) sendTogether(j job, to target, first *exchange) *exchange {
	all := []*exchange{first}
	for range first.crowd.size - 1 {
		address := ""
		if first.crowd.oneAddress {
			address = first.RemoteAddr
		}
		all = append(all, p.prepare(j, to, address))
	}
	answered, open := make(chan struct{}, len(all)), make(chan struct{})
	var running sync.WaitGroup
	for _, q := range all {
		running.Go(func() { p.send(q, func() { answered <- struct{}{}; <-open }) })
	}
	patience := time.NewTimer(p.with.Patience)
	defer patience.Stop()
	for n, late := 0, false; n < first.crowd.answered && !late; n++ {
		select {
		case <-answered:
		case <-patience.C:
			late = true
		}
	}
	close(open)
	running.Wait()
	for _, q := range all {
		if q.status >= 400 {
			return q
		}
	}
	return first
}

// explain says why the last of n requests has not reached a row.
func (p *provoker) explain(at row, q *exchange, n int) string {
	var text string
	switch {
	case q.status == 0:
		text = "a request of Provoke's was not answered"
	default:
		text = fmt.Sprintf("a request of Provoke's was answered %d %s", q.status, cmp.Or(q.code, http.StatusText(q.status)))
	}
	if n > 1 {
		text += fmt.Sprintf(", after %d like it", n-1)
	}
	switch {
	case q.status == http.StatusUnauthorized && q.as != nobody:
		return text + "; give Credentials.Keys or Sign, so that it is let in"
	case q.status == at.status && q.code == at.code:
		return text + ", which is a row of the route " + strconv.Quote(q.to.Pattern) + " too; make a request to a route that has no such row, or except this one"
	case q.status < 400 && q.as == elsewhere && p.with.Sign != nil:
		return text + "; let Credentials.Sign give the request the Networks of the key, or except the row if no caller has any"
	case q.status < 400 && q.as == metered && p.with.Sign != nil:
		return text + "; let Credentials.Sign give the request the Quotas of the key, or make as many as a plan has"
	case q.status < 400 && q.to.Pattern != "" && !q.to.Handled:
		return text + "; the handler of a route that is only declared is the service's own, so make a request that it answers so"
	}
	return text
}
