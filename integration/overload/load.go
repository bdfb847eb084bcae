package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// cell is what one measurement sends, and to how large a service.
type cell struct {
	name     string
	workers  int
	mix      mix
	deadline time.Duration // clients leave so long after they came
	phases   []phase
	from, to time.Duration // what came then is counted
}

// phase is a time in which the load is the same.
type phase struct {
	lasts  time.Duration
	load   float64 // times what the service can do when it is not slow
	slower int     // times: the work takes longer; 0 is 1
}

// mix is who asks for what.
type mix struct {
	mean time.Duration // of the work of a request
	draw func(random *rand.Rand, load float64) (caller int, work time.Duration)
}

// arrival is a request that is to be sent.
type arrival struct {
	at     time.Duration // since the beginning
	caller int
	work   time.Duration
}

// answer is what became of it.
type answer struct {
	late   time.Duration // it was sent so long after its time
	took   time.Duration // since its time, not since it was sent
	status int           // 0: there was none
}

// capacity is what the service can do in a second.
func (c cell) capacity() float64 { return float64(c.workers) / c.mix.mean.Seconds() }

// arrivals are a Poisson process: who comes knows nothing of who came before, nor of how
// the service is. The same seed gives the same arrivals, so that all admissions face them.
func (c cell) arrivals(seed uint64) []arrival {
	random := rand.New(rand.NewPCG(seed, 0))
	var all []arrival
	var begin time.Duration
	for _, p := range c.phases {
		gap := float64(time.Second) / (p.load * c.capacity())
		end := begin + p.lasts
		for at := begin; ; {
			at += time.Duration(random.ExpFloat64() * gap)
			if at >= end {
				break
			}
			caller, work := c.mix.draw(random, p.load)
			all = append(all, arrival{at: at, caller: caller, work: work})
		}
		begin = end
	}
	return all
}

// drive sends each request at its time, whatever has become of those before. A client that
// has not been answered by its deadline leaves. Once the last has left, drive calls end,
// which must let go of whatever the service still holds.
func drive(all []arrival, deadline time.Duration, send func(context.Context, arrival) int, end func()) []answer {
	answers := make([]answer, len(all))
	var wg sync.WaitGroup
	begin := time.Now()
	for i, a := range all {
		due := begin.Add(a.at)
		time.Sleep(time.Until(due))
		late := time.Since(due)
		wg.Go(func() {
			// Not a context with a deadline: a server sees a client that has left, and
			// knows nothing of how long it would have waited.
			ctx, leave := context.WithCancel(context.Background())
			timer := time.AfterFunc(time.Until(due.Add(deadline)), leave)
			status := send(ctx, a)
			answers[i] = answer{late: late, took: time.Since(due), status: status}
			timer.Stop()
			leave()
		})
	}
	letGo := time.AfterFunc(time.Until(begin.Add(all[len(all)-1].at+deadline)), end)
	defer letGo.Stop()
	wg.Wait()
	return answers
}
