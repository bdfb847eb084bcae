// Command load measures admission over sockets: a bare handler, a full admit.Policy, and
// chains of other people's middleware around the same handler, each in a process of its
// own. It needs wrk, and h2load for HTTP/2; without them it exits with 2.
//
//	go run ./integration/load
//	go run ./integration/load -rounds 1 -for 1s -connections 64 -h2=false
//
// The servers take turns within each round, and each is compared with the bare handler of
// the same round, so that whatever slows the machine for a while slows all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command returns the exit code: 1 for a run that failed, 2 for one that could not begin.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err == nil && o.serve != "":
		err = serve(o.serve, o.profile, os.Stdin, stdout)
	case err == nil:
		err = run(ctx, o, stdout)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "load:", err)
	if errors.As(err, new(cannotBegin)) {
		return 2
	}
	return 1
}

// cannotBegin is a wrong flag, or a program that is not installed.
type cannotBegin struct{ error }

type options struct {
	rounds      int
	lasts       time.Duration
	connections []int
	h2          bool
	out         string
	profile     string // a folder; with serve, a file
	serve       string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{connections: []int{1, 64, 512}}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 5, "measure each server so `often`")
	flags.DurationVar(&o.lasts, "for", 3*time.Second, "how long each time, in whole seconds")
	flags.Func("connections", "load HTTP/1.1 through so many connections, a `list`; empty: no HTTP/1.1 (default 1,64,512)", func(list string) error {
		o.connections = nil
		for n := range strings.SplitSeq(list, ",") {
			count, err := strconv.Atoi(n)
			if list != "" && (err != nil || count < 1) {
				return fmt.Errorf("%q is not a number of connections", n)
			}
			if list != "" {
				o.connections = append(o.connections, count)
			}
		}
		return nil
	})
	flags.BoolVar(&o.h2, "h2", true, "load HTTP/2 too")
	flags.StringVar(&o.out, "out", "", "write what was measured into `FILE`, as Markdown")
	flags.StringVar(&o.profile, "profile", "", "write a CPU profile of each server into `FOLDER`")
	flags.StringVar(&o.serve, "serve", "", "be the server of that `name`; this is how the command starts them")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, cannotBegin{err}
	}
	if o.rounds < 1 || o.lasts < time.Second || o.lasts%time.Second != 0 || !o.h2 && len(o.connections) == 0 || flags.NArg() > 0 {
		return o, cannotBegin{errors.New("give one or more rounds, whole seconds, and -connections or -h2; see -help")}
	}
	return o, nil
}

// loads are what the options ask for, in the order in which they are run and printed.
func (o options) loads() []load {
	var loads []load
	for _, n := range o.connections {
		loads = append(loads, wrk{connections: n})
	}
	if o.h2 {
		loads = append(loads, h2load{clients: 8, streams: 8})
	}
	return loads
}

func run(ctx context.Context, o options, stdout io.Writer) error {
	loads := o.loads()
	if err := installed(loads); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "load")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := writeFiles(folder); err != nil {
		return err
	}

	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
	}
	running := make([]*server, len(contestants))
	for i, c := range contestants {
		profile := ""
		if o.profile != "" {
			profile = filepath.Join(o.profile, c.name+".pprof")
		}
		s, err := start(c.name, profile)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		defer s.stop()
		if err := c.check(s.url); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		running[i] = s
	}

	m := newMeasurement(o, loads)
	fmt.Fprintln(stdout, m.answers())
	for i := range contestants { // connections, heaps and caches get warm
		for _, l := range loads {
			if _, err := running[i].load(ctx, l, folder, time.Second); err != nil {
				return fmt.Errorf("%s, %s: %w", contestants[i].name, l, err)
			}
		}
	}
	for round := range o.rounds {
		fmt.Fprintf(stdout, "round %d of %d\n", round+1, o.rounds)
		for at, l := range loads {
			for turn := range contestants {
				i := (turn + round + at) % len(contestants)
				s, err := running[i].load(ctx, l, folder, o.lasts)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", contestants[i].name, l, err)
				}
				m.samples[at][i] = append(m.samples[at][i], s)
			}
		}
	}
	tables := m.tables()
	fmt.Fprint(stdout, "\n", tables)
	if o.out == "" {
		return nil
	}
	return os.WriteFile(o.out, []byte(m.document(machineAndTools(), tables)), 0o644)
}

// installed reports every program that is missing.
func installed(loads []load) error {
	var packages []string
	for _, l := range loads {
		program, debian := l.program()
		if _, err := exec.LookPath(program); err != nil && !slices.Contains(packages, debian) {
			packages = append(packages, debian)
		}
	}
	if len(packages) > 0 {
		return cannotBegin{fmt.Errorf("install what sends the requests: apt-get install %s", strings.Join(packages, " "))}
	}
	return nil
}
