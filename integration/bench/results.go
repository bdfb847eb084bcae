package main

import (
	"io"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// results are all measurements: of each row, in the order in which they ran.
type results struct {
	marks  marks
	config map[string]string // what the test binaries say of the machine
	rows   []*line
}

// line is a row of the table: work that several libraries do.
type line struct {
	name  string // such as Accept/case=chrome
	cells []*cell
}

// cell is what was measured of a library, by unit.
type cell struct {
	lib    string
	values map[string][]float64
	marks  marks
}

func newResults(m marks) *results { return &results{marks: m, config: map[string]string{}} }

// read adds the output of a test binary.
func (all *results) read(output io.Reader) error {
	r := benchfmt.NewReader(output, "")
	for r.Scan() {
		result, ok := r.Result().(*benchfmt.Result)
		if !ok {
			continue // a log line
		}
		name, lib := split(result.Name)
		if lib == "" {
			continue
		}
		for _, c := range result.Config {
			all.config[c.Key] = string(c.Value)
		}
		c := all.cell(name, lib)
		for _, v := range result.Values {
			c.values[v.Unit] = append(c.values[v.Unit], v.Value)
		}
	}
	return r.Err()
}

// split takes the library, and the number of processors, out of the name of a benchmark.
func split(name benchfmt.Name) (row, lib string) {
	base, parts := name.Parts()
	row = string(base)
	for _, part := range parts {
		if l, ok := strings.CutPrefix(string(part), "/lib="); ok {
			lib = l
		} else if part[0] != '-' {
			row += string(part)
		}
	}
	return row, lib
}

func (all *results) cell(row, lib string) *cell {
	i := slices.IndexFunc(all.rows, func(l *line) bool { return l.name == row })
	if i < 0 {
		i, all.rows = len(all.rows), append(all.rows, &line{name: row})
	}
	l := all.rows[i]
	c := l.of(lib)
	if c == nil {
		c = &cell{lib: lib, values: map[string][]float64{}, marks: all.marks.of(row, lib)}
		l.cells = append(l.cells, c)
	}
	return c
}

func (l *line) of(lib string) *cell {
	if i := slices.IndexFunc(l.cells, func(c *cell) bool { return c.lib == lib }); i >= 0 {
		return l.cells[i]
	}
	return nil
}

// unit is what the row is about.
func (l *line) unit() string {
	if _, ok := l.cells[0].values["sec/op"]; ok {
		return "sec/op"
	}
	return "B/key"
}

// theme returns the rows of a theme.
func (all *results) theme(name string) (rows []*line) {
	for _, l := range all.rows {
		if l.theme() == name {
			rows = append(rows, l)
		}
	}
	return rows
}

// theme is the first part of the name.
func (l *line) theme() string {
	theme, _, _ := strings.Cut(l.name, "/")
	return theme
}

// label is the rest of the name, for people.
func (l *line) label() string {
	_, rest, _ := strings.Cut(l.name, "/")
	return strings.NewReplacer("case=", "", "mode=", "", "by=", "", "/n=", ": ", "/", ", ", "=", " ", "-", " ").Replace(rest)
}

// isPeer: admit has variants, and a floor is the least that the work can cost.
func (c *cell) isPeer() bool { return !strings.HasPrefix(c.lib, "admit") && c.lib != "floor" }

// best returns the fastest peer that answers rightly, or the one among all that do not.
func (l *line) best(wrong bool) (fastest *cell) {
	for _, c := range l.cells {
		if c.isPeer() && c.marks.wrong() == wrong && (fastest == nil || c.median(l.unit()) < fastest.median(l.unit())) {
			fastest = c
		}
	}
	return fastest
}

func (c *cell) sample(unit string) *benchmath.Sample {
	return benchmath.NewSample(slices.Clone(c.values[unit]), &benchmath.DefaultThresholds)
}

func (c *cell) summary(unit string) benchmath.Summary {
	return benchmath.AssumeNothing.Summary(c.sample(unit), 0.95)
}

func (c *cell) median(unit string) float64 { return c.summary(unit).Center }

// ratio is the cell's median over that of admit, as "2.0×"; "~" where the rounds do not
// tell them apart.
func (l *line) ratio(c *cell) string {
	admit, unit := l.of("admit"), l.unit()
	if admit == nil || admit == c {
		return ""
	}
	d := benchmath.AssumeNothing.Compare(admit.sample(unit), c.sample(unit))
	if d.P > d.Alpha {
		return "~"
	}
	return digits(c.median(unit)/admit.median(unit)) + "×"
}
