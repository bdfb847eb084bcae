// Command soak runs the example's service in a process of its own under mixed load with
// random faults, and proves that it holds: every answer is what the request can get, and
// in the OpenAPI document of the service, each request is one line of the access log, with
// the status that its client saw, no caller is admitted above its limits, and at the end
// goroutines, file descriptors and memory are back where they were.
//
//	go run ./integration/soak -for 10m
//
// A row is printed every ten seconds, and a verdict in the end, with an exit code. Each
// sender draws its requests from the seed, so that -seed repeats them; the keys are new,
// and how the senders interleave is up to the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
	"github.com/admit-go/admit/example/service"
	"github.com/admit-go/admit/integration/contract/answers"
	"github.com/admit-go/admit/integration/internal/cli"
)

func main() {
	if serveAsChild() {
		return
	}
	cli.Main("soak", func(ctx context.Context, args []string) error { return run(ctx, args, os.Stdout) })
}

const (
	warmUp = 8 * time.Second
	// back is how long the service may take to be as it was, once the load has ended. No
	// client is there any more; what it waits for by itself takes no longer than this.
	back = 15 * time.Second
)

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	lasts := flags.Duration("for", 10*time.Minute, "how long, after a warm-up")
	seed := flags.Uint64("seed", rand.Uint64(), "repeat the requests of a run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *lasts < time.Second || flags.NArg() > 0 {
		return errors.New("give -for 1s or more, and no arguments; see -help")
	}
	fmt.Fprintf(stdout, "seed %d\n", *seed)
	s, err := start(*seed)
	if err != nil {
		return err
	}
	defer s.stop()

	s.load(ctx, min(warmUp, *lasts), nil)
	before, err := s.quiet(nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "after the warm-up: %v\n\n%s\n", before, rowTitles)
	s.load(ctx, *lasts, stdout)
	after, err := s.quiet(&before)
	if err != nil {
		return err
	}
	if err := s.child.stop(); err != nil {
		s.tally.violation("the service did not stop as it should", err.Error())
	}
	return s.verdict(stdout, before, after, *lasts)
}

// soak is one run.
type soak struct {
	seed     uint64
	dir      string
	keys     *keyring
	document *answers.Document // the OpenAPI document of the service
	child    *child
	tally    *tally
	began    time.Time
	rounds   uint64 // of load: the warm-up is one
	clients  []*client
}

func start(seed uint64) (s *soak, err error) {
	s = &soak{seed: seed, tally: newTally(), began: time.Now()}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.document, err = documentOf(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "admit-soak-"); err != nil {
		return nil, err
	}
	if s.keys, err = newKeyring(filepath.Join(s.dir, "keys.json")); err != nil {
		return nil, err
	}
	if s.child, err = startChild(s.keys.path, s.tally); err != nil {
		return nil, err
	}
	s.clients = []*client{newClient(s.child.addr, false), newClient(s.child.addr, true)}
	return s, nil
}

// documentOf returns the OpenAPI document of a service like that of the child.
func documentOf() (*answers.Document, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	api, err := service.New(ctx, service.Config{Keys: admit.KeyMap{}})
	if err != nil {
		return nil, err
	}
	text, err := api.Contract.OpenAPI(contract.OpenAPI31)
	if err != nil {
		return nil, err
	}
	return answers.Read(text)
}

func (s *soak) stop() {
	for _, c := range s.clients {
		c.close()
	}
	if s.child != nil {
		_ = s.child.stop()
	}
	_ = os.RemoveAll(s.dir)
}

const senders = 8 // half of them over HTTP/2

// load runs everything at once until the time is over. Whoever is in the middle of
// something ends it.
func (s *soak) load(ctx context.Context, lasts time.Duration, rows io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, lasts)
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
	}()
	began := time.Now()
	s.rounds++
	spawn := func(f func(*generator), pause time.Duration) {
		g := &generator{rng: rand.New(rand.NewPCG(s.seed, s.rounds<<32|s.tally.nextSender())), keys: s.keys, orders: map[*caller]string{}}
		running.Go(func() {
			for ctx.Err() == nil {
				f(g)
				wait(ctx, time.Duration(g.rng.Int64N(int64(pause))))
			}
		})
	}
	for i := range senders {
		c := s.clients[i%len(s.clients)]
		spawn(func(g *generator) { s.exchange(c, g.next()) }, 20*time.Millisecond)
	}
	for _, f := range faults {
		for range f.times {
			if f.takes > lasts {
				break
			}
			spawn(func(g *generator) {
				s.tally.fault(f.name)
				f.run(&faulter{soak: s, g: g, ctx: ctx, name: f.name})
			}, f.pause)
		}
	}
	spawn(func(g *generator) { s.keys.rewrite(ctx, g.rng, s.tally) }, time.Second)

	ticks := time.NewTicker(10 * time.Second)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			if rows != nil {
				now, err := s.child.measure()
				if err != nil {
					s.tally.violation("the service cannot be measured", err.Error())
					return
				}
				fmt.Fprintln(rows, s.tally.row(now, time.Since(began)))
			}
		}
	}
}

// exchange sends a request, checks its answer, and notes an admission.
func (s *soak) exchange(c *client, q *request) {
	s.judge(q, c.send(q))
}

func (s *soak) judge(q *request, a *answer) {
	s.tally.answer(q, a)
	if q.caller != nil && a.err == nil && a.admitted() {
		s.tally.admit(q.caller, span{a.sent.Sub(s.began), a.received.Sub(s.began)})
		if a.status < 300 && q.kind != "usage" {
			s.tally.serve(q.caller)
		}
	}
	if q.caller != nil && !q.caller.added.began.IsZero() {
		accepted, refused := s.keys.standing(q.caller, a.sent, a.received)
		s.tally.rotated(accepted, refused)
	}
	if err := q.check(a); err != nil {
		s.tally.violation(err.Error(), q.String()+"\n"+a.String())
	}
	if a.err == nil && q.kind != "contract" { // which tells of the API, and is no part of it
		s.tally.documented(q, a, q.documented(s.document, a))
	}
}

// quiet closes all connections of the clients and waits until the service rests: until it
// is back at a level, or, without one, no longer changes.
func (s *soak) quiet(level *state) (state, error) {
	for _, c := range s.clients {
		c.close()
	}
	deadline := time.Now().Add(back)
	var last state
	for same := 0; ; {
		now, err := s.child.measure()
		if err != nil {
			return now, err
		}
		if now.Goroutines == last.Goroutines && now.Files == last.Files {
			same++
		} else {
			same = 0
		}
		last = now
		if level != nil && now.exceeds(*level) == nil || level == nil && same >= 15 || time.Now().After(deadline) {
			return now, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// wait returns early when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
