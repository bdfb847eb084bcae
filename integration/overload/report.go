package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/admit-go/admit/integration/internal/machine"
)

// result is what a scenario has shown.
type result struct {
	scenario
	values [][][]float64 // of each admission, in each cell, by each metric
	late   [][]float64   // of each admission, in each cell: ms
}

// tooLate is from when on a figure is marked, because the generator was late itself.
const tooLate = 5 // ms

// measure runs the cells one after another. An admission meets all cells before the next.
func (s scenario) measure(ctx context.Context, say func(format string, args ...any)) (*result, error) {
	all := &result{scenario: s}
	for _, a := range s.admissions {
		var values [][]float64
		var late []float64
		for _, c := range s.cells {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			r, err := c.measure(a, s.over)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", s.name, a.name, err)
			}
			var cell []float64
			var said []string
			for _, m := range s.metrics {
				cell = append(cell, m.of(r))
				said = append(said, m.text(cell[len(cell)-1]))
			}
			values, late = append(values, cell), append(late, r.lateness())
			say("%-10s %-12s %-32s %s; late %.1f ms\n", s.name, c.name, a.name, strings.Join(said, ", "), r.lateness())
		}
		all.values, all.late = append(all.values, values), append(all.late, late)
	}
	return all, nil
}

func (m metric) text(value float64) string {
	if math.IsNaN(value) {
		return ""
	}
	return fmt.Sprintf(m.format, value)
}

// text is a value, with a mark if the generator was late.
func (r *result) text(admission, cell, metric int) string {
	text := r.metrics[metric].text(r.values[admission][cell][metric])
	if text != "" && r.late[admission][cell] > tooLate {
		text += " †"
	}
	return text
}

// tables has one for each metric, with a column for each cell; or one for all, if there is
// only one cell.
func (r *result) tables() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%s\n", r.title, r.about)
	if len(r.cells) == 1 {
		var names []string
		for _, m := range r.metrics {
			names = append(names, m.name)
		}
		table(&b, r.admissions, names, func(admission, column int) string { return r.text(admission, 0, column) })
		return b.String()
	}
	var names []string
	for _, c := range r.cells {
		names = append(names, c.name)
	}
	for i, m := range r.metrics {
		fmt.Fprintf(&b, "\n%s:\n", m.name)
		table(&b, r.admissions, names, func(admission, column int) string { return r.text(admission, column, i) })
	}
	return b.String()
}

func table(b *strings.Builder, rows []admission, columns []string, text func(row, column int) string) {
	fmt.Fprintf(b, "\n| admission | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---:|", len(columns)))
	for i, a := range rows {
		fmt.Fprintf(b, "| %s |", a.name)
		for j := range columns {
			fmt.Fprintf(b, " %s |", text(i, j))
		}
		b.WriteByte('\n')
	}
}

// document is RESULTS.md.
func document(t spans, results []*result, places []cost) string {
	var b strings.Builder
	parts := append([]string{machine.String()}, machine.Modules("failsafe-go/")...)
	fmt.Fprintf(&b, `# Overload

%s. Written by `+"`go run ./integration/overload`"+`.

Requests come as a Poisson process, whether or not those before have been answered. A cell is %v after %v of the same load, with the same arrivals for every admission;
times are counted from when a request should have been sent. The service has a pool of workers: a request waits for one, in order and without a bound, unless its client leaves; its work is to sleep, so that the processors of
this machine bound nothing. A multiple (1×) is so many times the workers as a number of places, or so many times what they can do as a load; † marks a figure for which requests were sent more than %v late (p99).

![What is answered in time, of capacity, over the load](%s)

![Paying requests that are answered in time, over the load](%s)
`, strings.Join(parts, "; "), t.measured, t.warm, tooLate*time.Millisecond, goodputFile, payingFile)
	for _, r := range results {
		b.WriteString("\n" + r.tables())
	}
	b.WriteString("\n" + costTable(places))
	return b.String()
}
