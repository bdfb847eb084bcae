package main

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// themes are the parts of the report, in order, as people read them.
var themes = []struct{ name, title string }{
	{"Methods", "Methods"},
	{"Accept", "Accept, three offers"},
	{"ContentType", "Content-Type"},
	{"APIKey", "API key, of a thousand"},
	{"RateLimit", "Rate limit, headers included"},
	{"Quotas", "Quotas in memory"},
	{"Memory", "Memory for each key, one limit, 100,000 keys"},
	{"Timeout", "Timeout, by size of the answer"},
	{"Error", "An error of a handler"},
	{"Policy", "The whole chain, accepted"},
	{"Observe", "Metrics and a log line of a request"},
	{"Decisions", "Limits in Redis, accepted (answers unchecked)"},
	{"Growth", "How cost grows"},
}

// report is RESULTS.md.
func (all *results) report(ctx context.Context, o options, suites []*suite) (string, error) {
	var b strings.Builder
	commit, _ := exec.CommandContext(ctx, "git", "-C", suites[0].dir, "describe", "--always", "--dirty").Output()
	fmt.Fprintf(&b, "# admit beside its peers\n\nMade by `go run ./integration/bench`; do not edit.\n\n")
	fmt.Fprintf(&b, "- Date: %s\n- Machine: %s, %d processors, %s/%s\n- Go: %s\n", time.Now().UTC().Format(time.DateOnly),
		all.config["cpu"], runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if len(commit) > 0 {
		fmt.Fprintf(&b, "- admit: %s", commit)
	}
	fmt.Fprintf(&b, "- Rounds: %d, of %s for each benchmark, one after the other\n- Versions: %s\n\n", o.rounds, o.benchtime, strings.Join(peers(suites), ", "))
	b.WriteString(legend)

	for _, t := range themes {
		if rows := all.theme(t.name); len(rows) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n", t.title)
			writeTable(&b, rows)
		}
	}
	return b.String(), nil
}

const legend = `Medians, with the half width of the 95% interval. The last column is the median over admit's: above 1×
admit needs less; ~ means that the rounds do not tell the two apart (Mann-Whitney U, α = 0.05). **Bold** is the
fastest peer that does the work of the row. ✗ marks one that does not, by the checks of this run, which also ask
what the benchmark does not; a number without it is what else is missing or different, and excludes nobody.
"admit.…" are variants of admit; "floor" is the least that the work can cost; "by-hand", "mime" and "encoding-json"
are what one writes without a library, and "peers" whole chains of them all.
`

// peers are what was compared, with versions.
func peers(suites []*suite) (all []string) {
	for _, s := range suites {
		all = append(all, s.modules...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// footnotes have numbers in the order in which they come.
type footnotes struct{ texts []string }

func (f *footnotes) number(text string) int {
	i := slices.Index(f.texts, text)
	if i < 0 {
		i, f.texts = len(f.texts), append(f.texts, text)
	}
	return i + 1
}

// writeTable writes the rows of one theme.
func writeTable(b *strings.Builder, rows []*line) {
	var notes footnotes
	table := [][]string{{"", "library", "", "median", "±", "B/op", "allocs/op", "× admit"}}
	if rows[0].unit() == "B/key" {
		table[0][5], table[0][6] = "", ""
	}
	for _, l := range rows {
		best, label := l.best(false), l.label()
		for _, c := range l.cells {
			name, ratio := c.lib, l.ratio(c)
			if c == best && l.theme() != "Growth" { // whose answers are not checked again
				name, ratio = "**"+name+"**", "**"+ratio+"**"
			}
			s := c.summary(l.unit())
			row := []string{label, name, c.flags(&notes), quantity(s.Center, l.unit()), s.PctRangeString(), "", "", ratio}
			if l.unit() == "sec/op" {
				row[5], row[6] = count(c.median("B/op")), count(c.median("allocs/op"))
			}
			table, label = append(table, row), ""
		}
	}
	align(b, table)
	for i, text := range notes.texts {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "%d. %s\n", i+1, text)
	}
}

// flags are what the checks have found of a cell.
func (c *cell) flags(notes *footnotes) string {
	var numbers []string
	for _, m := range c.marks {
		numbers = append(numbers, fmt.Sprint(notes.number(m.Text)))
	}
	flags := strings.Join(numbers, " ")
	if c.marks.wrong() {
		flags = "✗ " + flags
	}
	return flags
}

// align writes a table of Markdown that also reads well as it is.
func align(b *strings.Builder, table [][]string) {
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, field := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(field), 2)
		}
	}
	for i, row := range table {
		for j, field := range row {
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(field))
			if j < 3 {
				fmt.Fprintf(b, "| %s%s ", field, pad)
			} else {
				fmt.Fprintf(b, "| %s%s ", pad, field)
			}
		}
		b.WriteString("|\n")
		if i > 0 {
			continue
		}
		for j, w := range widths {
			if j < 3 {
				fmt.Fprintf(b, "|%s", strings.Repeat("-", w+2))
			} else {
				fmt.Fprintf(b, "|%s:", strings.Repeat("-", w+1))
			}
		}
		b.WriteString("|\n")
	}
}

// quantity is n with three digits, in a unit that is easy to read.
func quantity(n float64, unit string) string {
	switch unit {
	case "sec/op":
	case "B/key":
		return count(n) + " B"
	default:
		return count(n)
	}
	for _, u := range []struct {
		name string
		of   float64
	}{{"s", 1}, {"ms", 1e-3}, {"µs", 1e-6}} {
		if n >= u.of*0.9995 {
			return digits(n/u.of) + " " + u.name
		}
	}
	return digits(n*1e9) + " ns"
}

// digits are three of n, two below 1, and all that stand before the point.
func digits(n float64) string {
	switch {
	case n >= 100:
		return fmt.Sprintf("%.0f", n)
	case n < 1:
		return fmt.Sprintf("%.2g", n)
	}
	return fmt.Sprintf("%.3g", n)
}

// count is a whole number, with commas.
func count(n float64) string {
	s := fmt.Sprintf("%.0f", math.Round(n))
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
