package main

import (
	"cmp"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit/integration/internal/machine"
)

// measurement is all samples: of each load, of each contestant, of each round.
type measurement struct {
	options options
	loads   []load
	samples [][][]sample
}

func newMeasurement(o options, loads []load) *measurement {
	m := &measurement{options: o, loads: loads, samples: make([][][]sample, len(loads))}
	for i := range loads {
		m.samples[i] = make([][]sample, len(contestants))
	}
	return m
}

// answers is what each server does and does not, as check has seen it.
func (m *measurement) answers() string {
	var b strings.Builder
	for _, c := range contestants {
		var not []string
		for _, name := range everything {
			if !slices.Contains(c.does, name) {
				not = append(not, name)
			}
		}
		fmt.Fprintf(&b, "- **%s**: %s.", c.name, c.about)
		if len(not) > 0 {
			fmt.Fprintf(&b, " Does not do: %s.", strings.Join(not, ", "))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// rivals are compared with each other. No peer of the timeouts bounds the body.
var rivals = [][2]string{
	{"policy", "peers"},
	{"policy-like-peers", "peers"},
	{"policy-timeouts", "peers-timeouts"},
	{"policy-like-peers-timeout", "peers-timeouts"},
}

// tables has a table for each load.
func (m *measurement) tables() string {
	var b strings.Builder
	for i, l := range m.loads {
		fmt.Fprintf(&b, "### %s\n\n| server | requests a second | of bare | p50 | p99 | CPU a request |\n|---|---:|---:|---:|---:|---:|\n", l)
		for at, samples := range m.samples[i] {
			ratios := ratiosTo(m.samples[i][0], samples, perSecond)
			fmt.Fprintf(&b, "| %s | %.1fk | %s | %s | %s | %s |\n", contestants[at].name,
				median(of(samples, perSecond))/1000,
				spread(ratios),
				ms(median(of(samples, func(s sample) time.Duration { return s.p50 }))),
				ms(median(of(samples, func(s sample) time.Duration { return s.p99 }))),
				us(median(of(samples, func(s sample) time.Duration { return s.cpu }))))
		}
		for _, pair := range rivals {
			ours, theirs := m.samples[i][indexOf(pair[0])], m.samples[i][indexOf(pair[1])]
			fmt.Fprintf(&b, "\n%s to %s: %s of the requests a second", pair[0], pair[1],
				spread(ratiosTo(theirs, ours, perSecond)))
			if theirs[0].cpu > 0 {
				fmt.Fprintf(&b, ", %s of the CPU a request", spread(ratiosTo(theirs, ours, cpu)))
			}
			b.WriteString(".\n")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func indexOf(name string) int {
	return slices.IndexFunc(contestants, func(c contestant) bool { return c.name == name })
}

func of[T any](samples []sample, field func(sample) T) []T {
	var all []T
	for _, s := range samples {
		all = append(all, field(s))
	}
	return all
}

func perSecond(s sample) float64 { return s.perSecond }

func cpu(s sample) float64 { return float64(s.cpu) }

// ratiosTo pairs the samples of the same round.
func ratiosTo(base, samples []sample, field func(sample) float64) []float64 {
	var all []float64
	for i, s := range samples {
		all = append(all, field(s)/field(base[i]))
	}
	return all
}

// median returns the lower of two that are in the middle.
func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

func spread(ratios []float64) string {
	return fmt.Sprintf("%.1f%% (%.1f..%.1f)", 100*median(ratios), 100*slices.Min(ratios), 100*slices.Max(ratios))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/1e6) }

// us is empty where the time is not known.
func us(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f µs", float64(d)/1e3)
}

// document is RESULTS.md.
func (m *measurement) document(machine, tables string) string {
	return fmt.Sprintf(`# Load over sockets

%s
%s
Written by `+"`go run ./integration/load`"+`. Each server is a process of its own on the same machine as what loads it, and answers the same POST of %d bytes
of JSON with a key. A cell is the median of %d rounds of %s, in which the servers take turns; a ratio is the median of those to the bare handler
in the same round, with the lowest and highest. The handler reads the body and answers with it, no more, so that what is
around it shows. The CPU is that of the server's process for each request, its part of the kernel included.

%s
%s`, machine, time.Now().UTC().Format("2 January 2006."), len(body), m.options.rounds, m.options.lasts, m.answers(), strings.TrimSuffix(tables, "\n"))
}

// machineAndTools is what the figures depend on.
func machineAndTools() string {
	parts := append([]string{machine.String(), firstLine("wrk", "-v"), firstLine("h2load", "--version")},
		machine.Modules("go-chi/", "elnormous/")...)
	return strings.Join(parts, "; ") + "."
}

// firstLine is what a program says of its version; wrk exits with 1 after it.
func firstLine(program string, args ...string) string {
	out, _ := exec.Command(program, args...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	line, _, _ = strings.Cut(line, " [")
	return line
}
