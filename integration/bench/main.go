// Command bench compares admit with what people use today, in one run: it has the
// benchmarks of this directory, and those of redislimit if redis-server is installed, run
// several times in turn, and writes RESULTS.md, allocs.txt and two plots beside them.
//
//	go run ./integration/bench
//	go run ./integration/bench -run RateLimit -rounds 4 -out /tmp
//	go run ./integration/bench -allocs
//
// The statistics are those of benchstat.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/admit-go/admit/integration/internal/cli"
)

func main() {
	cli.Main("bench", func(ctx context.Context, args []string) error { return run(ctx, args, os.Stdout, os.Stderr) })
}

type options struct {
	run       string
	rounds    int
	benchtime time.Duration
	out       string
	allocs    bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.run, "run", ".", "run only the benchmarks that match `REGEX`, as for go test -bench")
	flags.IntVar(&o.rounds, "rounds", 8, "run everything so many `times`")
	flags.DurationVar(&o.benchtime, "benchtime", 100*time.Millisecond, "how long for each benchmark in each round")
	flags.StringVar(&o.out, "out", "", "write into `DIR`, not beside the source")
	flags.BoolVar(&o.allocs, "allocs", false, "write nothing: look whether admit allocates more than in "+allocsFile+", in a few seconds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if _, err := regexp.Compile(strings.Split(o.run, "/")[0]); err != nil || o.rounds < 1 || o.benchtime <= 0 || flags.NArg() > 0 {
		return errors.New("-run needs a regular expression, -rounds and -benchtime need more than 0, and no arguments follow; see -help")
	}
	tmp, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if o.allocs {
		text, err := checkAllocs(ctx, tmp)
		fmt.Fprint(stdout, text)
		return err
	}

	suites, err := build(ctx, tmp, o.run)
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = suites[0].dir
	}
	found, err := suites[0].check(ctx, filepath.Join(tmp, "marks.json"))
	if err != nil {
		return err
	}
	all := newResults(found)
	for i := range o.rounds {
		began := time.Now()
		for _, s := range suites {
			if err := s.round(ctx, o, all); err != nil {
				return err
			}
		}
		fmt.Fprintf(stderr, "round %d of %d took %.0f s\n", i+1, o.rounds, time.Since(began).Seconds())
	}
	if len(all.rows) == 0 {
		return fmt.Errorf("no benchmark matches %q", o.run)
	}
	report, err := all.report(ctx, o, suites)
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, report)
	for name, content := range map[string][]byte{
		"RESULTS.md": []byte(report), allocsFile: all.allocs().text(), "peers.svg": all.drawPeers(), "growth.svg": all.drawGrowth(),
	} {
		if content != nil {
			err = errors.Join(err, os.WriteFile(filepath.Join(o.out, name), content, 0o644))
		}
	}
	return err
}
