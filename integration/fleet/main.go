// Command fleet runs replicas of the example's service that share one Redis for their
// limits and one database for their keys, and lets three callers send more than their
// plans allow. It needs redis-server; the keys are in PostgreSQL if that is installed,
// else in SQLite. It ends by itself, with a verdict and an exit code.
//
//	go run ./integration/fleet
//	go run ./integration/fleet -kill redis
//	go run ./integration/fleet -hang redis
//
// The failure begins at half time; at three quarters Redis is there again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

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
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var o options
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.StringVar(&o.kill, "kill", "", "kill `redis` at half time; it comes back empty")
	flags.StringVar(&o.hang, "hang", "", "stop `redis` at half time, with all connections as they are")
	flags.IntVar(&o.replicas, "replicas", 8, "run so many `replicas`")
	flags.DurationVar(&o.lasts, "for", 30*time.Second, "how long")
	flags.StringVar(&o.svg, "svg", "", "draw what was admitted, and what may be, into `FILE`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, name := range []string{o.kill, o.hang} {
		if name != "" && name != "redis" {
			return fmt.Errorf("-kill and -hang take redis, not %q", name)
		}
	}
	if o.kill != "" && o.hang != "" || o.replicas < 1 || o.lasts < 4*time.Second || flags.NArg() > 0 {
		return errors.New("give -kill or -hang, one or more replicas, and 4s or more; see -help")
	}
	if !servers.HasRedis() {
		return errors.New("redis-server is not installed")
	}

	f, err := startFleet(ctx, o.replicas)
	if err != nil {
		return err
	}
	defer f.close()
	fmt.Fprintf(stdout, "%d replicas, limits in Redis, keys in %s; free: 5 a second, pro and trader: 50 a second each\n", o.replicas, f.database)
	log, err := f.exercise(ctx, o, stdout)
	if err != nil {
		return err
	}
	if o.svg != "" {
		if err := os.WriteFile(o.svg, log.draw(), 0o644); err != nil {
			return err
		}
	}
	return log.verdict(stdout)
}

// exercise sends requests until the time is over, and breaks Redis on the way.
func (f *fleet) exercise(ctx context.Context, o options, stdout io.Writer) (*record, error) {
	ctx, cancel := context.WithTimeout(ctx, o.lasts)
	defer cancel()
	log := newRecord(f)
	sending := f.load(ctx, log)
	defer sending.Wait()

	fmt.Fprintln(stdout, "\n  time     sent  admitted  refused  failed    bound  to Redis   p50 added   p99 added")
	seconds := time.NewTicker(time.Second)
	defer seconds.Stop()
	begin, end := time.After(o.lasts/2), time.After(o.lasts*3/4)
	if o.kill == "" && o.hang == "" {
		begin, end = nil, nil
	}
	for {
		select {
		case <-ctx.Done():
			cancel()
			sending.Wait()
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return nil, errors.New("interrupted")
			}
			log.finish()
			return log, nil
		case <-seconds.C:
			fmt.Fprintln(stdout, log.row())
		case <-begin:
			log.begins()
			if o.kill != "" {
				f.redis.Stop()
			} else if err := f.redis.Hang(); err != nil {
				return nil, err
			}
			fmt.Fprintln(stdout, "         Redis is gone: each replica applies its share of the limits")
		case <-end:
			log.ends()
			restore := f.redis.Resume
			if o.kill != "" {
				restore = f.redis.Start
			}
			if err := restore(); err != nil {
				return nil, err
			}
			fmt.Fprintln(stdout, "         Redis is back")
		}
	}
}
