package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/machine"
)

const resultsFile = "integration/fleet/RESULTS.md"

// tableLeases are those of the table: none, a short one, and one that spares most trips.
var tableLeases = []admit.Lease{{}, {Share: 0.1, For: 100 * time.Millisecond}, {Share: 0.25, For: time.Second}}

// fast is what a limit should add at most to a request that needs no trip.
const fast = 50 * time.Microsecond

// runOne prints one run.
func runOne(ctx context.Context, o options, stdout io.Writer) error {
	result, err := exerciseLimit(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, tableOf(result))
	return errors.Join(result.verdict()...)
}

// runTable runs all, and writes the results also where they break a promise.
func runTable(ctx context.Context, o options, stdout io.Writer) error {
	var b strings.Builder
	var faults []error
	load, database := machine.Load(), ""
	for _, rate := range []float64{0.5, 0.9, 2} {
		fmt.Fprintf(&b, "\n## %v times the limit\n\n", rate)
		var results []*outcome
		for _, o.lease = range tableLeases {
			o.rate = rate
			result, err := exerciseLimit(ctx, o)
			if err != nil {
				return err
			}
			fmt.Fprintf(stdout, "%v times the limit, lease %s\n\n%s\n", rate, leaseText(o.lease), tableOf(result))
			results, database = append(results, result), result.database
			faults = append(faults, result.verdict()...)
		}
		b.WriteString(tableOf(results...))
	}
	text := document(o, load, database, b.String(), faults)
	return errors.Join(append(faults, os.WriteFile(resultsFile, []byte(text), 0o644))...)
}

// tableOf has the phases of all outcomes, side by side.
func tableOf(results ...*outcome) string {
	var b strings.Builder
	b.WriteString("| Redis | lease | came | admitted | in any 1 s | ahead | alone | calls | p50 | p90 | p99 | fast |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for i := range results[0].phases {
		for _, o := range results {
			b.WriteString(o.row(o.phases[i]))
		}
	}
	return b.String()
}

func (o *outcome) row(p *phase) string {
	came, mark := len(p.decisions), ""
	if p.behind(o.rate) {
		mark = " †"
	}
	worst, ahead := p.most(), p.ahead(o.lease)
	return fmt.Sprintf("| %s | %s | %d%s | %d | %d of %d | %d of %d | %.1f%% | %.3f | %s | %s | %s | %.1f%% |\n",
		p.name, leaseText(o.lease), came, mark, p.admitted(), worst.per, ahead+limit.Requests, worst.ahead, ahead,
		p.percent(func(d decision) bool { return d.alone }), p.callsEach(),
		micros(p.added(50)), micros(p.added(90)), micros(p.added(99)), p.percent(func(d decision) bool { return d.took() < fast }))
}

func leaseText(l admit.Lease) string {
	if l == (admit.Lease{}) {
		return "none"
	}
	return fmt.Sprintf("%v, %v", l.Share, l.For)
}

func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }

// document is RESULTS.md.
func document(o options, load, database, tables string, faults []error) string {
	version, _ := exec.Command("redis-server", "--version").Output()
	kept := "All bounds held."
	if len(faults) > 0 {
		kept = "Bounds that did not hold:\n\n- " + strings.ReplaceAll(errors.Join(faults...).Error(), "\n", "\n- ")
	}
	if load != "" {
		load = " The load of the machine was " + load + " before that."
	}
	return fmt.Sprintf(`# Replicas that share a limit

%s; %s; %s. Keys in %s.
%s
Written by `+"`go run ./integration/fleet -table`"+` (%s of requests for each run; `+"`-rate 0.9 -lease 0.1`"+` is one of them).%s

%d replicas share one limit of %d a second in Redis, which holds as many. One caller sends to all of them in turn, at an even rate. Replicas, Redis, the database and the sender
share this machine: only what came can be admitted, and † marks where less than 98%% of it did.

- **lease**: how much the replicas may take ahead together, of the limit, and for how long; none: each request asks Redis.
- **in any 1 s**: the most that was admitted, and the bound: what may be ahead, and a second of the limit.
- **ahead**: the most that was admitted in any time, less what the limit gives back in that time, and the bound: the bucket, and what is taken ahead. Where Redis goes away, the shares of all replicas are a
  second bucket, less what they let in before; where it comes back, its own is full again. A time may begin up to a second before its row does.
- **alone**: decided by the share of a replica, since Redis did not answer in 50 ms, or has not until a probe finds it well, once a second. While Redis is there, the bound has what was so admitted on top; where
  it is healthy, it is the machine that had too much to do.
- **calls**: of Redis, probes too, for each admitted request.
- **p50, p90, p99**: the time from when a request comes to the Limiter to when it is decided. **fast**: the part of all that took less than %v.

%s
%s`, machine.String(), redisVersion(string(version)), strings.Join(machine.Modules("redis/go-redis/"), "; "), database, time.Now().UTC().Format("2 January 2006."), o.lasts, load,
		o.replicas, limit.Requests, fast, kept, tables)
}

// redisVersion is the beginning of what redis-server says of itself.
func redisVersion(line string) string {
	before, _, _ := strings.Cut(strings.TrimSpace(line), " sha=")
	return before
}
