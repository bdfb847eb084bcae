package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var marksFile = flag.String("marks", "", "write what the checks find to `FILE`")

// contest is work that several libraries do, after the name of its benchmark.
type contest struct {
	name    string
	entries []entry
}

// entry is a library in a contest. A check looks at whole answers, to the request that is
// timed and to those around it; the timing only at the status.
type entry struct {
	lib   string
	check func(*verdict)
	time  func(*testing.B)
}

// verdict gathers what a check finds.
type verdict struct {
	*testing.T
	marks marks
}

// wrong says that the library does not do the work of the contest.
func (v *verdict) wrong(format string, args ...any) {
	v.marks = append(v.marks, mark{Text: fmt.Sprintf(format, args...), Wrong: true})
}

// note says what else is missing, or different.
func (v *verdict) note(format string, args ...any) {
	v.marks = append(v.marks, mark{Text: fmt.Sprintf(format, args...)})
}

// ask returns the answer to a request, which must have the status.
func (v *verdict) ask(h http.Handler, r *http.Request, status int, what string) *http.Response {
	w := newRecorder()
	h.ServeHTTP(w, r)
	if w.Code != status {
		v.wrong("answers %s with %d, not %d", what, w.Code, status)
	}
	return w.Result()
}

// refusal is ask for an error, which should have a body for programs.
func (v *verdict) refusal(h http.Handler, r *http.Request, status int, what string) *http.Response {
	res := v.ask(h, r, status, what)
	if fault := bodyFault(res); fault != "" && res.StatusCode == status {
		v.note("%s", fault)
	}
	return res
}

// bodyFault says why a program cannot read the body of an error; empty: it can.
func bodyFault(res *http.Response) string {
	body, _ := io.ReadAll(res.Body)
	mediaType, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case len(body) == 0:
		return fmt.Sprintf("its %d has no body", res.StatusCode)
	case !json.Valid(body):
		return fmt.Sprintf("its %d is text, not JSON", res.StatusCode)
	case !strings.HasSuffix(mediaType, "json"):
		return fmt.Sprintf("its %d does not say that it is JSON", res.StatusCode)
	}
	return ""
}

// contests are all themes, by the name of the benchmark.
func contests() map[string][]contest {
	return map[string][]contest{
		"Methods": methods(), "Accept": accept(), "ContentType": contentTypes(), "APIKey": apiKeys(),
		"RateLimit": rateLimits(), "Quotas": quotas(), "Timeout": timeouts(), "Error": writtenErrors(), "Policy": policies(), "Observe": observers(),
	}
}

// TestAnswers runs every check. A peer may answer otherwise; admit must not.
func TestAnswers(t *testing.T) {
	t.Parallel()
	var all marks
	var mu sync.Mutex
	t.Cleanup(func() {
		if *marksFile == "" {
			return
		}
		content, err := json.Marshal(all)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(*marksFile, content, 0o600))
	})
	for theme, rows := range contests() {
		for _, c := range rows {
			for _, e := range c.entries {
				row := path.Join(theme, c.name)
				t.Run(row+"/lib="+e.lib, func(t *testing.T) {
					t.Parallel()
					v := &verdict{T: t}
					e.check(v)
					for i := range v.marks {
						v.marks[i].Row, v.marks[i].Lib = row, e.lib
						t.Log(v.marks[i].Text)
					}
					if strings.HasPrefix(e.lib, "admit") {
						assert.Empty(t, v.marks)
					}
					mu.Lock()
					defer mu.Unlock()
					all = append(all, v.marks...)
				})
			}
		}
	}
}

// TestChecksFind has checks say of peers what is known of them.
func TestChecksFind(t *testing.T) {
	t.Parallel()
	for _, known := range []struct {
		theme, row, lib, text string
		wrong                 bool
	}{
		{"Accept", "case=ten-with-parameters", "gddo", `chooses "", not "application/json"`, true},
		{"APIKey", "case=accepted", "echo", "leaves the credential in the request", true},
		{"APIKey", "case=missing", "echo", "answers a key that is missing with 400, not 401", true},
		{"ContentType", "case=415", "gorilla", "its 415 is text, not JSON", false},
		{"ContentType", "case=415", "chi", "does not answer while the upload stalls", true},
		{"Error", "case=404", "http.Error", "its 404 is text, not JSON", true},
		{"Methods", "case=405", "chi", "its 405 has no body", false},
		{"RateLimit", "keys=1/case=accepted", "echo", "does not tell the client what is left", true},
		{"RateLimit", "keys=1/case=refused", "ulule", "sends no Retry-After", true},
		{"Timeout", "case=1KiB", "chi", "does not interrupt a handler that overruns", true},
		{"Observe", "case=metrics", "promhttp", "does not tell the route", false},
		{"Observe", "case=log", "httplog", "tells the query, which may hold a key", false},
		{"Policy", "case=with-timeouts", "peers+chi", "does not interrupt a handler that overruns", true},
	} {
		v := &verdict{T: t}
		for _, c := range contests()[known.theme] {
			for _, e := range c.entries {
				if c.name == known.row && e.lib == known.lib {
					e.check(v)
				}
			}
		}
		assert.Contains(t, v.marks, mark{Text: known.text, Wrong: known.wrong}, "%+v", known)
	}
}

// compare times the entries of a theme one after the other.
func compare(b *testing.B, contests []contest) {
	for _, c := range contests {
		for _, e := range c.entries {
			b.Run(path.Join(c.name, "lib="+e.lib), e.time)
		}
	}
}

// discard is a response writer that allocates nothing.
type discard struct {
	header http.Header
	status int
}

func newDiscard() *discard { return &discard{header: make(http.Header), status: http.StatusOK} }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// SetReadDeadline is there in a server's writer, and a BodyTimeout asks for it.
func (d *discard) SetReadDeadline(time.Time) error { return nil }

type recorder struct{ *httptest.ResponseRecorder }

func newRecorder() recorder { return recorder{httptest.NewRecorder()} }

func (recorder) SetReadDeadline(time.Time) error { return nil }

// clear forgets the headers of the answer before, as a server does.
func (d *discard) clear() {
	if len(d.header) > 0 {
		clear(d.header)
	}
}

// serially times h with one request, whose answer must have the status.
func serially(h http.Handler, newRequest func() *http.Request, status int) func(*testing.B) {
	return func(b *testing.B) {
		w, r := newDiscard(), newRequest()
		b.ReportAllocs()
		for b.Loop() {
			w.clear()
			h.ServeHTTP(w, r)
		}
		if w.status != status {
			b.Errorf("status %d, not %d", w.status, status)
		}
	}
}

// bothWays times h serially, and with a goroutine for each processor.
func bothWays(h http.Handler, newRequest func() *http.Request, status int) func(*testing.B) {
	return func(b *testing.B) {
		b.Run("mode=serial", serially(h, newRequest, status))
		b.Run("mode=parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				w, r, served := newDiscard(), newRequest(), false
				for pb.Next() {
					w.clear()
					h.ServeHTTP(w, r)
					served = true
				}
				if served && w.status != status {
					b.Errorf("status %d, not %d", w.status, status)
				}
			})
		})
	}
}

// nothing is the handler inside.
var nothing = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// must is for what is configured by literals.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// requests returns a maker of requests with these headers, name and value in turn.
func requests(method, body string, headers ...string) func() *http.Request {
	return func() *http.Request {
		var r *http.Request
		if body == "" {
			r = httptest.NewRequest(method, "/", nil)
		} else {
			r = httptest.NewRequest(method, "/", strings.NewReader(body))
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		return r
	}
}
