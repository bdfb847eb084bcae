// Command fleet runs replicas that share one Redis for their limits and one database for their
// keys. It needs redis-server; the keys are in PostgreSQL if that is installed, else in SQLite.
// It ends by itself, with a verdict and an exit code.
//
// Replicas of the example's service, and three callers who send more than their plans allow:
//
//	go run ./integration/fleet
//	go run ./integration/fleet -kill redis
//	go run ./integration/fleet -hang redis
//
// The failure begins at half time; at three quarters Redis is there again.
//
// Replicas with one limit of 1,000 a second, and one caller who sends a multiple of that, while
// Redis is healthy, hangs, is back, is killed and is back:
//
//	go run ./integration/fleet -rate 0.9
//	go run ./integration/fleet -rate 0.9 -lease 0.1
//	go run ./integration/fleet -table
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/cli"
	"github.com/admit-go/admit/integration/servers"
)

func main() {
	cli.Main("fleet", func(ctx context.Context, args []string) error { return run(ctx, args, os.Stdout) })
}

type options struct {
	kill, hang string
	replicas   int
	lasts      time.Duration
	svg        string
	rate       float64 // of the limit; 0: the example
	lease      admit.Lease
	table      bool
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var o options
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.StringVar(&o.kill, "kill", "", "kill `redis` at half time; it comes back empty")
	flags.StringVar(&o.hang, "hang", "", "stop `redis` at half time, with all connections as they are")
	flags.IntVar(&o.replicas, "replicas", 8, "run so many `replicas`")
	flags.DurationVar(&o.lasts, "for", 30*time.Second, "how long")
	flags.StringVar(&o.svg, "svg", "", "draw what was admitted, and what may be, into `FILE`")
	flags.Float64Var(&o.rate, "rate", 0, "send so many `times` a limit of 1,000 a second, while Redis fails in each way")
	flags.Float64Var(&o.lease.Share, "lease", 0, "with -rate: the `share` of the limit that the replicas may take ahead")
	flags.DurationVar(&o.lease.For, "lease-for", 100*time.Millisecond, "with -lease: for how long")
	flags.BoolVar(&o.table, "table", false, "run -rate 0.5, 0.9 and 2, each without a lease and with two, and write "+resultsFile)
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, name := range []string{o.kill, o.hang} {
		if name != "" && name != "redis" {
			return fmt.Errorf("-kill and -hang take redis, not %q", name)
		}
	}
	limited := o.table || o.rate > 0
	switch {
	case o.replicas < 1 || flags.NArg() > 0:
		return errors.New("give one or more replicas, and no arguments; see -help")
	case o.kill != "" && o.hang != "" || o.lasts < 4*time.Second:
		return errors.New("give -kill or -hang, and 4s or more; see -help")
	case limited && (o.kill+o.hang+o.svg != "" || o.lasts < 12*time.Second || o.table && o.rate+o.lease.Share > 0):
		return errors.New("give -rate, perhaps with -lease, or -table, and 12s or more; Redis fails in each way then; see -help")
	case !limited && o.lease.Share != 0 || o.rate < 0 || o.rate > 5:
		return errors.New("give -lease with a -rate, which is at most 5; see -help")
	}
	if !servers.HasRedis() {
		return errors.New("redis-server is not installed")
	}
	switch {
	case o.table:
		return runTable(ctx, o, stdout)
	case limited:
		return runOne(ctx, o, stdout)
	default:
		return runDemo(ctx, o, stdout)
	}
}
