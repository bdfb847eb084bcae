package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/admit-go/admit"
)

// phase is a part of a run, and what happened in it.
type phase struct {
	name   string
	begins func(*fleet) error
	away   bool    // Redis
	bucket bool    // another one decides from now on, which may be full: the shares of the replicas, or Redis
	share  float64 // of all the time

	lasted    time.Duration
	decisions []decision
	before    []decision // in the last Per before it
	calls     int64      // of Redis
}

func newPhases() []*phase {
	return []*phase{
		{name: "healthy", begins: func(*fleet) error { return nil }, share: 2. / 6},
		{name: "hung", begins: func(f *fleet) error { return f.redis.Hang() }, share: 1. / 6, away: true, bucket: true},
		{name: "back", begins: func(f *fleet) error { return f.redis.Resume() }, share: 1. / 6, bucket: true},
		{name: "killed", begins: func(f *fleet) error { f.redis.Stop(); return nil }, share: 1. / 6, away: true, bucket: true},
		{name: "restarted", begins: func(f *fleet) error { return f.redis.Start() }, share: 1. / 6, bucket: true},
	}
}

// outcome is a run: so many times the limit, with a lease or without.
type outcome struct {
	rate     float64
	lease    admit.Lease
	database string
	phases   []*phase
	answers  map[int]int // by status
}

// exerciseLimit runs all phases with a fleet of its own.
func exerciseLimit(ctx context.Context, o options) (*outcome, error) {
	s := &limited{lease: o.lease, began: time.Now()}
	if s.lease.Share == 0 {
		s.lease = admit.Lease{}
	}
	f, err := startFleet(ctx, o.replicas, s, caller{name: "busy", rate: int(o.rate * float64(limit.Requests))})
	if err != nil {
		return nil, err
	}
	defer f.close()
	result := &outcome{rate: o.rate, lease: s.lease, database: f.database, phases: newPhases()}
	warming, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	if err := f.warm(warming, f.callers[0]); err != nil {
		return nil, err
	}
	connecting, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	f.send(connecting, f.callers[0])
	time.Sleep(limit.Per) // the bucket is full again
	s.take()

	sending, enough := context.WithCancel(ctx)
	sent := make(chan map[int]int)
	go func() { sent <- f.send(sending, f.callers[0]) }()
	err = f.pass(ctx, s, result.phases, o.lasts)
	enough()
	result.answers = <-sent
	return result, err
}

func (f *fleet) pass(ctx context.Context, s *limited, phases []*phase, lasts time.Duration) error {
	var last []decision
	for _, p := range phases {
		p.before = slices.DeleteFunc(last, func(d decision) bool { return d.from < time.Since(s.began)-limit.Per })
		began, calls := time.Now(), f.calls.Load()
		if err := p.begins(f); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(p.share*float64(lasts)) - time.Since(began)):
		}
		p.lasted, p.calls, p.decisions = time.Since(began), f.calls.Load()-calls, s.take()
		last = slices.Clone(p.decisions)
	}
	return nil
}

// count returns how many decisions are such.
func (p *phase) count(such func(decision) bool) (n int) {
	for _, d := range p.decisions {
		if such(d) {
			n++
		}
	}
	return n
}

func (p *phase) admitted() int { return p.count(func(d decision) bool { return d.admitted }) }

// percent is the part of all decisions that are such.
func (p *phase) percent(such func(decision) bool) float64 {
	return 100 * float64(p.count(such)) / float64(max(len(p.decisions), 1))
}

// callsEach is how often Redis was asked for an admitted request.
func (p *phase) callsEach() float64 { return float64(p.calls) / float64(max(p.admitted(), 1)) }

// added is the time that the limit has added to so many of a hundred requests, at most.
func (p *phase) added(percent float64) time.Duration {
	var took []time.Duration
	for _, d := range p.decisions {
		took = append(took, d.took())
	}
	slices.Sort(took)
	if len(took) == 0 {
		return 0
	}
	return took[min(int(float64(len(took))*percent/100), len(took)-1)]
}

// behind reports whether fewer requests came than should have been sent.
func (p *phase) behind(rate float64) bool {
	return float64(len(p.decisions)) < 0.98*rate*float64(limit.Requests)*p.lasted.Seconds()
}

// most is what was admitted in a phase, and where it began.
func (p *phase) most() most { return mostIn(slices.Concat(p.before, p.decisions)) }

// ahead is how many more may be admitted in any time than the rate of the limit allows: a bucket,
// and what was taken ahead. Where Redis fails, the shares of all replicas are a second bucket.
// Where it is back, its own is full again; until the last replica finds out, about a second later,
// both let in, as they do when an answer comes too late.
func (p *phase) ahead(lease admit.Lease) int {
	n := int((1 + lease.Share) * float64(limit.Requests))
	if p.bucket {
		n += limit.Requests
	}
	if !p.away {
		n += p.count(func(d decision) bool { return d.admitted && d.alone })
	}
	return n
}

// verdict returns what was promised and not kept.
func (o *outcome) verdict() (faults []error) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("at %v times the limit, lease %s: %s", o.rate, leaseText(o.lease), fmt.Sprintf(format, args...)))
	}
	for _, p := range o.phases {
		most := p.most()
		if most.ahead > p.ahead(o.lease) {
			fault("%s: %d admitted ahead of the limit, at most %d may be", p.name, most.ahead, p.ahead(o.lease))
		}
		if bound := p.ahead(o.lease) + limit.Requests; most.per > bound {
			fault("%s: %d admitted in %v, at most %d may be", p.name, most.per, limit.Per, bound)
		}
	}
	for status, n := range o.answers {
		if status != http.StatusOK && status != http.StatusTooManyRequests {
			fault("%d answers have the status %d", n, status)
		}
	}
	return faults
}
