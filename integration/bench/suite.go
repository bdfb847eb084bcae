package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/admit-go/admit/integration/servers"
)

// suite is a package of benchmarks, whose test binary is built once.
type suite struct {
	dir, binary string
	pattern     string   // of its benchmarks
	modules     []string // that its tests import, with versions
}

const module = "github.com/admit-go/admit/integration/"

// benchmarks are those of this package.
func benchmarks() *suite { return &suite{dir: module + "bench"} }

// build returns this package, and then those that may run besides.
func build(ctx context.Context, tmp, pattern string) ([]*suite, error) {
	all := []*suite{benchmarks()}
	all[0].pattern = pattern
	if regexp.MustCompile(strings.Split(pattern, "/")[0]).MatchString("BenchmarkDecisions") && servers.HasRedis() {
		if pattern == "." {
			pattern = "^BenchmarkDecisions$"
		}
		all = append(all, &suite{dir: module + "redislimit", pattern: pattern})
	}
	for _, s := range all {
		if err := s.build(ctx, tmp); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *suite) build(ctx context.Context, tmp string) error {
	listed, err := command(ctx, "", "go", "list", "-f", "{{.Dir}} {{join .TestImports ` `}} {{join .XTestImports ` `}}", s.dir)
	if err != nil {
		return err
	}
	fields := strings.Fields(string(listed))
	s.dir = fields[0]
	list := append([]string{"list", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}"}, fields[1:]...)
	modules, err := command(ctx, s.dir, "go", list...)
	if err != nil {
		return err
	}
	for _, m := range strings.Split(string(modules), "\n") {
		// Admit's own have no version; neither testify nor golang.org/x are compared.
		if strings.Contains(m, " v") && !strings.HasPrefix(m, "github.com/stretchr/") && !strings.HasPrefix(m, "golang.org/x/") {
			s.modules = append(s.modules, m)
		}
	}
	s.binary = filepath.Join(tmp, filepath.Base(s.dir)+".test")
	_, err = command(ctx, s.dir, "go", "test", "-c", "-o", s.binary, ".")
	return err
}

// check has the tests of the answers say what they find.
func (s *suite) check(ctx context.Context, file string) (marks, error) {
	if _, err := command(ctx, s.dir, s.binary, "-test.run", "^TestAnswers$", "-marks", file); err != nil {
		return nil, fmt.Errorf("an answer of admit is wrong: %w", err)
	}
	return readMarks(file)
}

// round runs each benchmark once.
func (s *suite) round(ctx context.Context, o options, into *results) error {
	out, err := command(ctx, s.dir, s.binary, "-test.run", "^$", "-test.bench", s.pattern, "-test.count", "1",
		"-test.benchtime", o.benchtime.String(), "-test.timeout", "1h")
	if err != nil {
		return err
	}
	return into.read(bytes.NewReader(out))
}

// command returns what a program prints; if it fails, that is in the error.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Stdout, c.Stderr = dir, &out, &errs
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, failures(out.String()), errs.Bytes())
	}
	return out.Bytes(), nil
}

// failures are the lines of a test's output that are no results.
func failures(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "Benchmark") {
			b.WriteString(line)
		}
	}
	return b.String()
}
