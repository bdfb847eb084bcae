package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// allocsFile is beside RESULTS.md, from the same run.
const allocsFile = "allocs.txt"

// What is measured for a look at the allocations alone: all benchmarks of admit but those
// that take long to prepare, or measure something else.
const (
	ofAdmit = `/^lib=admit|//^lib=admit|///^lib=admit`
	slow    = `Memory|Million|Decisions|Growth/by=(keys|goroutines)`
)

// allocs are the allocations of one operation, by row and library, such as
// "Accept/case=chrome admit".
type allocs map[string]int

func (all *results) allocs() allocs {
	a := allocs{}
	for _, l := range all.rows {
		if regexp.MustCompile(slow).MatchString(l.name) {
			continue
		}
		for _, c := range l.cells {
			if c.values["allocs/op"] != nil && strings.HasPrefix(c.lib, "admit") {
				a[l.name+" "+c.lib] = int(math.Round(c.median("allocs/op")))
			}
		}
	}
	return a
}

// text has a row to a line.
func (a allocs) text() []byte {
	b := bytes.NewBufferString("# Allocations of one operation. Made with RESULTS.md; `make allocs` compares with it.\n")
	for _, row := range slices.Sorted(maps.Keys(a)) {
		fmt.Fprintln(b, row, a[row])
	}
	return b.Bytes()
}

// readAllocs reads what text returns.
func readAllocs(text string) (allocs, error) {
	a := allocs{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var row, lib string
		var n int
		if _, err := fmt.Sscan(line, &row, &lib, &n); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", allocsFile, strings.TrimSpace(line), err)
		}
		a[row+" "+lib] = n
	}
	return a, nil
}

// moreThan returns an error that names each row with more allocations than before. Rows
// that are new are none.
func (a allocs) moreThan(before allocs) error {
	var faults []error
	for _, row := range slices.Sorted(maps.Keys(a)) {
		if n, known := before[row]; known && a[row] > n {
			faults = append(faults, fmt.Errorf("%s: %d allocations, %d before", row, a[row], n))
		}
	}
	return errors.Join(faults...)
}

// checkAllocs measures the allocations again, and compares them with those of the last
// results.
func checkAllocs(ctx context.Context, tmp string) (string, error) {
	s := benchmarks()
	if err := s.build(ctx, tmp); err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(s.dir, allocsFile))
	if err != nil {
		return "", err
	}
	before, err := readAllocs(string(text))
	if err != nil {
		return "", err
	}
	out, err := command(ctx, s.dir, s.binary, "-test.run", "^$", "-test.bench", ofAdmit, "-test.skip", slow, "-test.count", "3", "-test.benchtime", "100x")
	if err != nil {
		return "", err
	}
	all := newResults(nil)
	if err := all.read(bytes.NewReader(out)); err != nil {
		return "", err
	}
	now := all.allocs()
	if len(now) == 0 {
		return "", errors.New("no benchmark of admit has run")
	}
	if err := now.moreThan(before); err != nil {
		return "", fmt.Errorf("more allocations than in %s; `make bench` notes new ones:\n%w", allocsFile, err)
	}
	return fmt.Sprintf("%d rows of admit allocate no more than in %s\n", len(now), allocsFile), nil
}
