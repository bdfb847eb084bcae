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

// Credentials are what Provoke needs to know of a service. All fields are optional: without one,
// the rows that need it are not reached, and AllReached says what is missing.
type Credentials struct {
	// Keys is the store of the service's Auth, if that is a KeyMap. Provoke adds the keys that
	// it needs, with the scopes and plans that the Policies require, and removes them again.
	// No other request may come meanwhile.
	Keys admit.KeyMap
	// Sign adds a credential to r, so that it is a request of a caller like key. It is for an
	// Identity, such as a JWT with the Scopes and the Plan of the key, and for an Auth whose
	// store is not a KeyMap. With the Limits, Quotas and Networks of the key too, more rows are
	// reached. One goroutine at a time calls it.
	Sign func(r *http.Request, key *admit.Key)
	// Values replace the wildcards of patterns in the path, by name. Default: admittest.
	Values map[string]string
	// OtherStores lets Provoke send requests to routes whose keys, limits or quotas are in a
	// store that other processes may share. It looks up keys there that do not exist, and uses
	// up limits and quotas of callers and addresses that do not exist otherwise.
	OtherStores bool
	// Patience bounds how long Provoke waits for one response, of a slow body or a slow
	// handler. Default: 10 s. In a bubble of testing/synctest, waiting takes no time.
	Patience time.Duration
}

// Provoke makes a request for each row that admit itself can answer and that no response has had
// so far: without a key, with a bad key, with a method, a media type or a body that is not
// accepted, beyond a limit, without the scope or the plan, with a body that stalls, during
// maintenance, and so on. AllReached reports what it has not reached, with the reason.
//
// The requests are made in this process, each from an address of its own. Those that have to
// wait do so in parallel. If that takes a second or more, the log of the test says how long at
// most. In a bubble of testing/synctest, waiting takes no time. Provoke leaves no goroutine behind.
//
// On routes of Handle, Provoke replaces the handlers, also by handlers that panic or are slow.
// The handlers of the service run only for the rows that they answer themselves, such as those
// of Decodes, with bodies that no handler should accept; on routes of Declare they run for other
// rows too. Provoke switches a Maintenance on for one request at a time, which also rejects
// others at that time, and restores it at the end. It gives up a row after 1,000 requests.
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
	run       string // distinguishes its callers from those of other runs
	outer     published.Route
	routes    []published.Route
	tokens    map[string]string // of Credentials.Keys, by the ID of the key
	addresses atomic.Uint32     // number of those used
	signing   sync.Mutex
	signed    int // callers of Sign so far, by signing
}

// endMaintenance switches every Maintenance off, and returns a function that restores them.
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

// provoke does the jobs of a phase. Those that wait run in parallel.
func (p *provoker) provoke(when phase, jobs []job) {
	jobs = slices.DeleteFunc(slices.Clone(jobs), func(j job) bool { return j.when != when })
	if when != waiting {
		for _, j := range jobs {
			p.try(j)
		}
		return
	}
	p.logWait(jobs)
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

// logWait says how long the jobs take, if somebody has to wait for that. The clock of a bubble
// starts in the year 2000, and waits for nothing.
func (p *provoker) logWait(jobs []job) {
	var longest time.Duration
	waits := 0
	for _, j := range jobs {
		if d := j.takes(j.route.Chain); d <= p.with.Patience {
			longest = max(longest, d)
			waits++
		}
	}
	if longest >= time.Second && time.Now().Year() > 2020 {
		p.t.Logf("admittest: Provoke waits up to %v for each of the slow responses, %d in all, %d at a time; in a bubble of testing/synctest that takes no time", longest, waits, p.places())
	}
}

// places returns how many requests may wait at once without being rejected for that.
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
			p.because(rowOf(r), unknown(r)) // unless a job finds another reason
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

// unknown returns the reason why Provoke cannot reach a row.
func unknown(r published.Row) string {
	switch {
	case r.Field == "handler":
		return "it is an error of the service; make a request that gets it"
	case r.Status == http.StatusServiceUnavailable:
		return "it needs a store that fails; give the service such a store in a test, and make a request"
	default:
		return "Provoke knows no request for it; make one"
	}
}

// because records why a row has not been reached.
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

// try sends the requests of a job to its targets until the row is reached.
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
			p.because(j.at, "Provoke has no request for it here; make one")
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

// mostRequests bounds the requests that Provoke makes for one row.
const mostRequests = 1000

// targets returns where a request may reach a row. The outer Policy answers with its rows before
// the mux, unless they need a handler.
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
		all = append(all, target{route: p.outer, path: "/"}) // which may be the page of the contract
	}
	return all
}

// forbids returns why a job must not be done, or "".
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

// prepare returns the signed request of a job, or nil if there is none. It comes from the
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

// sendTogether sends more requests than can be admitted together. It holds back the responses of
// those that are admitted until one has been rejected, and returns one that was.
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

// explain returns why the last of n requests has not reached a row.
func (p *provoker) explain(at row, q *exchange, n int) string {
	var text string
	switch {
	case q.status == 0:
		text = "a request of Provoke got no response"
	default:
		text = fmt.Sprintf("a request of Provoke got %d %s", q.status, cmp.Or(q.code, http.StatusText(q.status)))
	}
	if n > 1 {
		text += fmt.Sprintf(", after %d like it", n-1)
	}
	switch {
	case q.status == http.StatusUnauthorized && q.as != nobody:
		return text + "; set Credentials.Keys or Sign, so that it is admitted"
	case q.status == at.status && q.code == at.code:
		return text + ", which is also a row of the route " + strconv.Quote(q.to.Pattern) + "; make a request to a route without such a row, or pass this row to AllReached as an exception"
	case q.status < 400 && q.as == elsewhere && p.with.Sign != nil:
		return text + "; make Credentials.Sign use the Networks of the key, or pass the row to AllReached as an exception if no caller has any"
	case q.status < 400 && q.as == metered && p.with.Sign != nil:
		return text + "; make Credentials.Sign use the Quotas of the key, or make as many requests as a plan has"
	case q.as == metered && q.code == "rate_limited":
		return text + "; the rate limit is reached before the quota: make Credentials.Sign use the Quotas of the key, or its Limits, which are larger"
	case at.code == "request_timeout" && q.code == "handler_timeout":
		return text + "; a Timeout is over before the Grace of the BodyTimeout: give the BodyTimeout a Max, or the Timeout more time"
	case q.status < 400 && q.to.Pattern != "" && !q.to.Handled:
		return text + "; Provoke cannot replace the handler of a route that is only declared, so make a request that gets it"
	}
	return text
}
