package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// tally is what has happened.
type tally struct {
	began   time.Time
	mu      sync.Mutex
	senders uint64

	kinds      map[string]map[int]int // requests of each kind by status; 0: cut
	statuses   map[int]int
	protocols  map[int]int
	faults     map[string]int
	admitted   map[*caller][]span
	served     map[*caller]int64 // answers that are counted against its quota, at least
	log        map[string]int
	access     accessLog
	exceeded   int            // answers for which a quota was used up
	rotating   map[string]int // answers to keys that came and went
	inDocument int            // answers that the OpenAPI document has
	outside    int            // and does not have
	violations int
	first      []string // of the violations, in full
}

const maxShown = 5

func newTally() *tally {
	return &tally{
		began: time.Now(),
		kinds: map[string]map[int]int{}, statuses: map[int]int{}, protocols: map[int]int{},
		faults: map[string]int{}, admitted: map[*caller][]span{}, served: map[*caller]int64{}, log: map[string]int{}, rotating: map[string]int{},
		access: newAccessLog(),
	}
}

func (t *tally) nextSender() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.senders++
	return t.senders
}

func (t *tally) answer(q *request, a *answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kinds[q.kind] == nil {
		t.kinds[q.kind] = map[int]int{}
	}
	t.kinds[q.kind][a.status]++
	t.statuses[a.status]++
	t.protocols[a.proto]++
	if a.err == nil {
		t.access.answer(a.header.Get("X-Request-Id"), a.status, q.half)
	}
	if a.status == http.StatusTooManyRequests && len(a.header["Ratelimit"]) > 1 {
		t.exceeded++
	}
}

func (t *tally) fault(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[name]++
}

func (t *tally) admit(c *caller, s span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.admitted[c] = append(t.admitted[c], s)
}

func (t *tally) serve(c *caller) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.served[c]++
}

// What the key of a request had to be at its time.
const (
	mustAccept = "had to be accepted"
	mustRefuse = "had to be refused"
	mayBoth    = "came while the file was being taken"
)

func (t *tally) rotated(accepted, refused bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case accepted && refused:
		t.rotating[mayBoth]++
	case accepted:
		t.rotating[mustAccept]++
	default:
		t.rotating[mustRefuse]++
	}
}

func (t *tally) violation(what, detail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.violations++
	if len(t.first) < maxShown {
		t.first = append(t.first, fmt.Sprintf("after %v: %s\n%s", time.Since(t.began).Round(time.Millisecond), what, detail))
	}
}

// documented notes whether the OpenAPI document has an answer.
func (t *tally) documented(q *request, a *answer, err error) {
	t.mu.Lock()
	if err == nil {
		t.inDocument++
	} else {
		t.outside++
	}
	t.mu.Unlock()
	if err != nil {
		t.violation(err.Error(), q.String()+"\n"+a.String())
	}
}

// mishap is a fault of this program itself.
func (t *tally) mishap(err error) {
	if err != nil {
		t.violation("the soak itself failed", err.Error())
	}
}

// messages are what the service logs; anything else is a fault of it, such as a panic
// that has reached the server, or a second answer to a request.
var messages = []string{
	"admit: a request failed", "admit: a handler panicked",
	"admit: the key file has changed", "admit: the key file cannot be used",
	"admit: a key has a plan that is not known here",
}

// rare are those that need not be there: on a machine that stands still for a while.
var rare = []string{"admit: the quota store failed", "admit: the quota store is back"}

// readLog reads what the service logs, to its end.
func (t *tally) readLog(log io.Reader) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		var l struct {
			Message string `json:"msg"`
			ID      string `json:"request_id"`
			Status  int    `json:"http.response.status_code"`
		}
		_ = json.Unmarshal(lines.Bytes(), &l) // what is none has no message
		known := slices.Concat(messages, rare)
		i := slices.IndexFunc(known, func(m string) bool { return strings.HasPrefix(l.Message, m) })
		switch {
		case secrets.MatchString(line):
			t.violation("the log has a credential", line)
		case l.Message == "request":
			t.mu.Lock()
			t.access.line(l.ID, l.Status)
			t.mu.Unlock()
		case i < 0:
			t.violation("the log has what it should not", line)
		default:
			t.mu.Lock()
			t.log[known[i]]++
			t.mu.Unlock()
		}
	}
	t.mishap(lines.Err())
}

const rowTitles = "  time   requests       2xx       429       4xx       5xx   cut  faults  violations   goroutines   fds   heap"

func (t *tally) row(now state, at time.Duration) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all, refused, faults int
	var class [6]int
	for status, n := range t.statuses {
		all += n
		if status == http.StatusTooManyRequests {
			refused += n
		} else {
			class[status/100] += n
		}
	}
	for _, n := range t.faults {
		faults += n
	}
	return fmt.Sprintf("%5.0fs %10d %9d %9d %9d %9d %5d %7d %11d %12d %5d %5.2fM", at.Seconds(),
		all, class[2], refused, class[4], class[5], class[0], faults, t.violations, now.Goroutines, now.Files, float64(now.Heap)/(1<<20))
}

// A run that is not very short sees each of these at least once: a check that is never
// made proves nothing.
const shortRun = 30 * time.Second

var expectedStatuses = []int{200, 201, 204, 400, 401, 402, 403, 404, 405, 406, 408, 409, 413, 415, 422, 429, 500, 501, 502, 503, 504}

// verdict prints what was counted and what was kept, and returns an error for what not.
func (s *soak) verdict(w io.Writer, before, after state, lasted time.Duration) error {
	t := s.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(w, "\nanswers by kind of request")
	for _, kind := range slices.Sorted(maps.Keys(t.kinds)) {
		fmt.Fprintf(w, "  %-28s %s\n", kind, counts(t.kinds[kind]))
	}
	fmt.Fprintf(w, "by status\n  %s\n", counts(t.statuses))
	fmt.Fprintf(w, "by protocol\n  HTTP/1.1: %d, HTTP/2: %d\n", t.protocols[1], t.protocols[2])
	fmt.Fprintln(w, "faults")
	for _, name := range slices.Sorted(maps.Keys(t.faults)) {
		fmt.Fprintf(w, "  %7d  %s\n", t.faults[name], name)
	}
	fmt.Fprintln(w, "requests with keys that came and went")
	for _, name := range []string{mustAccept, mustRefuse, mayBoth} {
		fmt.Fprintf(w, "  %7d  %s\n", t.rotating[name], name)
	}
	fmt.Fprintf(w, "answers for which a quota was used up\n  %7d\n", t.exceeded)
	fmt.Fprintln(w, "lines of the log")
	for _, m := range slices.Concat(messages, rare) {
		fmt.Fprintf(w, "  %7d  %s\n", t.log[m], m)
	}
	fmt.Fprintf(w, "before  %v\nafter   %v\n\n", before, after)

	var faults []error
	check := func(err error, kept string, args ...any) {
		if err != nil {
			fmt.Fprintln(w, "  FAILED", err)
			faults = append(faults, err)
			return
		}
		fmt.Fprintf(w, "  ok     "+kept+"\n", args...)
	}
	var err error
	if t.violations > 0 {
		err = fmt.Errorf("%d violations; the seed is %d; the first are above", t.violations, s.seed)
		fmt.Fprintf(w, "violations\n\n%s\n\n", strings.Join(t.first, "\n\n"))
	}
	answers := 0
	for _, n := range t.statuses {
		answers += n
	}
	check(err, "each of %d answers was the envelope, or the route's own, with the right status and headers", answers)
	if err = nil; t.outside > 0 {
		err = fmt.Errorf("%d answers are not in the OpenAPI document of the service", t.outside)
	}
	check(err, "each of %d answers was in the OpenAPI document of the service", t.inDocument)
	check(t.access.check(after.Requests), "each of %d requests has one line in the access log, and each answer one with its id and status", t.access.lines)
	n, err := t.excesses()
	check(err, "none of %d callers was admitted above its limits, or served above its quota", n)
	check(after.exceeds(before), "goroutines and descriptors are back where they were, and so is the heap within %d KiB", heapTolerance>>10)
	if lasted >= shortRun {
		check(t.missing(), "everything that should happen has happened")
	}
	return errors.Join(faults...)
}

// excesses looks at all callers.
func (t *tally) excesses() (callers int, err error) {
	for c, spans := range t.admitted {
		for _, l := range limitsOf(c.key.Plan) {
			if e := excess(spans, l); e != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", c.key.ID, e))
			}
		}
	}
	for c, n := range t.served {
		if q := quotaOf(c.key); q != nil && !q.Soft && n > q.Requests {
			err = errors.Join(err, fmt.Errorf("%s: %d were served, of a quota of %d", c.key.ID, n, q.Requests))
		}
	}
	return len(t.admitted), err
}

func (t *tally) missing() error {
	var missing []string
	if t.inDocument == 0 {
		missing = append(missing, "an answer that is in the document")
	}
	for _, status := range expectedStatuses {
		if t.statuses[status] == 0 {
			missing = append(missing, fmt.Sprint(status))
		}
	}
	for _, f := range faults {
		if t.faults[f.name] == 0 {
			missing = append(missing, f.name)
		}
	}
	for _, m := range messages {
		if t.log[m] == 0 {
			missing = append(missing, m)
		}
	}
	if t.exceeded == 0 {
		missing = append(missing, "a quota that is used up")
	}
	for _, name := range []string{mustAccept, mustRefuse} {
		if t.rotating[name] == 0 {
			missing = append(missing, "a key that "+name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this has not happened: %s", strings.Join(missing, ", "))
	}
	return nil
}

// counts has the numbers of each status.
func counts(n map[int]int) string {
	var all []string
	for _, status := range slices.Sorted(maps.Keys(n)) {
		name := fmt.Sprint(status)
		if status == 0 {
			name = "cut"
		}
		all = append(all, fmt.Sprintf("%s: %d", name, n[status]))
	}
	return strings.Join(all, ", ")
}
