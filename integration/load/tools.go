package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sample is what one run of a load has seen.
type sample struct {
	perSecond float64 // requests
	p50, p99  time.Duration
	cpu       time.Duration // of the server, for each request; 0: not known
}

// load is a program that sends requests. Its run fails if not every one was answered, or
// not with 2xx.
type load interface {
	String() string
	program() (name, debian string)
	run(ctx context.Context, folder, url string, lasts time.Duration) (sample, error)
}

// wrk sends HTTP/1.1 requests.
type wrk struct{ connections int }

func (l wrk) String() string {
	if l.connections == 1 {
		return "HTTP/1.1, 1 connection"
	}
	return fmt.Sprintf("HTTP/1.1, %d connections", l.connections)
}

func (wrk) program() (name, debian string) { return "wrk", "wrk" }

func (l wrk) run(ctx context.Context, folder, url string, lasts time.Duration) (sample, error) {
	out, err := output(ctx, "wrk", "-c", strconv.Itoa(l.connections), "-t", strconv.Itoa(min(2, l.connections)),
		"-d", seconds(lasts), "-s", filepath.Join(folder, "post.lua"), url)
	if err != nil {
		return sample{}, err
	}
	return parseWrk(out)
}

// script is what wrk sends, and has it say at the end what parseWrk reads: what it prints
// by itself is rounded. A script without a request function is not called while wrk sends.
func script() string {
	var b strings.Builder
	fmt.Fprintf(&b, "wrk.method = \"POST\"\nwrk.body = %q\n", body)
	for _, h := range headers {
		fmt.Fprintf(&b, "wrk.headers[%q] = %q\n", h[0], h[1])
	}
	b.WriteString(`done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format("` + wrkFormat + `", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect, e.read, e.write, e.timeout, e.status))
end
`)
	return b.String()
}

const wrkFormat = "load: %d requests in %d us, p50 %d us, p99 %d us; errors: %d connect, %d read, %d write, %d timeout, %d status"

func parseWrk(out string) (sample, error) {
	at := strings.Index(out, "load: ")
	if at < 0 {
		return sample{}, fmt.Errorf("wrk has not said what it has seen: %q", out)
	}
	var requests, us, p50, p99, connect, read, write, timeout, failed int32
	_, err := fmt.Sscanf(out[at:], wrkFormat, &requests, &us, &p50, &p99, &connect, &read, &write, &timeout, &failed)
	if err != nil {
		return sample{}, fmt.Errorf("wrk: %w: %q", err, out[at:])
	}
	if connect != 0 || read != 0 || write != 0 || timeout != 0 || failed != 0 {
		return sample{}, fmt.Errorf("wrk has seen errors: %s", out[at:])
	}
	if requests <= 0 || us <= 0 || p50 < 0 || p99 < p50 {
		return sample{}, fmt.Errorf("wrk cannot have seen this: %s", out[at:])
	}
	return sample{
		perSecond: float64(requests) / (float64(us) / 1e6),
		p50:       time.Duration(p50) * time.Microsecond, p99: time.Duration(p99) * time.Microsecond,
	}, nil
}

// h2load sends HTTP/2 requests without TLS, some at a time through each connection.
type h2load struct{ clients, streams int }

func (l h2load) String() string {
	return fmt.Sprintf("HTTP/2, %d connections of %d streams", l.clients, l.streams)
}

func (h2load) program() (name, debian string) { return "h2load", "nghttp2-client" }

func (l h2load) run(ctx context.Context, folder, url string, lasts time.Duration) (sample, error) {
	log := filepath.Join(folder, "h2load.log")
	if err := os.RemoveAll(log); err != nil { // h2load appends
		return sample{}, err
	}
	args := []string{
		"-c", strconv.Itoa(l.clients), "-m", strconv.Itoa(l.streams), "-t", "2", "-D", seconds(lasts),
		"-d", filepath.Join(folder, "body.json"), "--log-file", log,
	}
	for _, h := range headers {
		args = append(args, "-H", h[0]+": "+h[1])
	}
	out, err := output(ctx, "h2load", append(args, url)...)
	if err != nil {
		return sample{}, err
	}
	s, err := parseH2load(out)
	if err != nil {
		return sample{}, err
	}
	file, err := os.Open(log)
	if err != nil {
		return sample{}, err
	}
	defer file.Close()
	s.p50, s.p99, err = parseH2loadLog(file)
	return s, err
}

var h2loadLines = regexp.MustCompile(`(?s)finished in [^,\n]+, ([0-9.]+) req/s,.*` +
	`requests: [0-9]+ total, [0-9]+ started, ([0-9]+) done, ([0-9]+) succeeded, 0 failed, 0 errored, 0 timeout\n` +
	`status codes: ([0-9]+) 2xx, 0 3xx, 0 4xx, 0 5xx\n`)

func parseH2load(out string) (sample, error) {
	found := h2loadLines.FindStringSubmatch(out)
	if found == nil {
		return sample{}, fmt.Errorf("h2load has seen errors: %s", out)
	}
	perSecond, err := strconv.ParseFloat(found[1], 64)
	if err != nil || perSecond <= 0 || found[2] != found[3] {
		return sample{}, fmt.Errorf("h2load has not had an answer to every request: %s", out)
	}
	return sample{perSecond: perSecond}, nil
}

// parseH2loadLog reads the times of all requests, because h2load itself prints no
// percentiles: when each began, its status, and how many microseconds it took.
func parseH2loadLog(log io.Reader) (p50, p99 time.Duration, err error) {
	var took []time.Duration
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		columns := strings.Split(lines.Text(), "\t")
		if len(columns) < 3 {
			return 0, 0, fmt.Errorf("the log of h2load has %q", lines.Text())
		}
		us, err := strconv.ParseUint(columns[2], 10, 32)
		if err != nil || columns[1] != "200" {
			return 0, 0, fmt.Errorf("the log of h2load has %q", lines.Text())
		}
		took = append(took, time.Duration(us)*time.Microsecond)
	}
	if err := lines.Err(); err != nil {
		return 0, 0, err
	}
	if len(took) == 0 {
		return 0, 0, errors.New("the log of h2load is empty")
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], nil
}

// writeFiles puts what the programs send into folder.
func writeFiles(folder string) error {
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "post.lua"), []byte(script()), 0o600),
		os.WriteFile(filepath.Join(folder, "body.json"), []byte(body), 0o600),
	)
}

func output(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if ctx.Err() != nil {
		return "", errors.New("interrupted")
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return string(out), nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
