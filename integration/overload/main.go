// Command overload measures what is answered in time when more comes than a service can do:
// with nothing in front of it, with a bound on what is in flight, with failsafe-go's
// adaptive limiter, and with a Shedder.
//
//	go run ./integration/overload
//	go run ./integration/overload -quick -only plans,callers
//
// Cells run one after another. It needs a machine that does nothing else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit/integration/internal/cli"
)

func main() {
	cli.Main("overload", func(ctx context.Context, args []string) error { return command(ctx, args, os.Stdout) })
}

func command(ctx context.Context, args []string, stdout io.Writer) error {
	var quick bool
	var only, out string
	flags := flag.NewFlagSet("overload", flag.ContinueOnError)
	flags.BoolVar(&quick, "quick", false, "measure each cell for 1.5 s, not for 4")
	flags.StringVar(&only, "only", "", "measure these `SCENARIOS` only, a list")
	flags.StringVar(&out, "out", "", "write RESULTS.md and the plots into `DIR`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	t := spans{warm: time.Second, measured: 4 * time.Second}
	if quick {
		t = spans{warm: 500 * time.Millisecond, measured: 1500 * time.Millisecond}
	}
	chosen, err := choose(scenarios(t), only)
	if err != nil {
		return err
	}
	if flags.NArg() > 0 || only != "" && out != "" {
		return errors.New("-out needs all scenarios, and no arguments follow; see -help")
	}

	var results []*result
	for _, s := range chosen {
		r, err := s.measure(ctx, func(format string, args ...any) { fmt.Fprintf(stdout, format, args...) })
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "\n%s\n", r.tables())
		results = append(results, r)
	}
	if only != "" {
		return nil
	}
	places, err := costs(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s\n", costTable(places))
	if out == "" {
		return nil
	}
	return write(out, t, results, places)
}

// choose returns those scenarios that a list names, or all.
func choose(all []scenario, only string) ([]scenario, error) {
	if only == "" {
		return all, nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(only, ",") {
		at := slices.IndexFunc(all, func(s scenario) bool { return s.name == name })
		if at < 0 {
			var names []string
			for _, s := range all {
				names = append(names, s.name)
			}
			return nil, fmt.Errorf("there is no scenario %q, but %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

func write(dir string, t spans, results []*result, places []cost) error {
	for name, content := range map[string][]byte{
		"RESULTS.md": []byte(document(t, results, places)),
		goodputFile:  drawGoodput(results),
		payingFile:   drawPaying(results),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
