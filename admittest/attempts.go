package admittest

import (
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/admit-go/admit/internal/published"
)

// phase is when an attempt is made: attempts that disturb others come later.
type phase int

const (
	atOnce     phase = iota
	waiting          // waits for a timeout of a Policy
	crowded          // takes all places
	often            // uses up a limit or a quota
	maintained       // rejects all other requests
	phases
)

// attempt is a way to reach the rows of some fields of a Policy with a status.
type attempt struct {
	fields []string // of the row
	status int
	when   phase

	// change turns a request that is admitted into one that is rejected. It returns false if
	// that is not possible.
	change func(q *exchange) bool

	takes       func(published.Chain) time.Duration // how long it waits
	handler     bool                                // it needs a handler, or a replacement for one
	otherMethod bool                                // it needs the path of a route that has another method
}

var attempts = []attempt{
	{fields: of(""), status: 500, change: func(q *exchange) bool { return noResource(q) && refusedWithPanic(q) }},
	{fields: of(""), status: 500, change: func(q *exchange) bool { q.standIn = panics; return q.to.Handled }},
	{fields: of(""), status: 500, change: refusedWithPanic},
	{fields: of("Maintenance"), status: 503, when: maintained, change: func(q *exchange) bool {
		q.maintenance = q.to.Chain.Maintenance
		return true
	}},
	{fields: of("InFlight"), status: 429, when: crowded, change: comeTogether},
	{fields: of("Shedder"), status: 429, when: crowded, takes: waitForPlace, change: func(q *exchange) bool {
		q.crowd = crowd{size: q.to.Chain.Shedder.Max + 1, answered: q.to.Chain.Shedder.Max + 1}
		return true
	}},
	{fields: of("AddressLimiter"), status: 429, when: often, change: func(q *exchange) bool {
		q.uses(leastByAddress(q.to.Chain))
		return true
	}},
	{fields: of("Methods"), status: 405, change: wrongMethod},
	{fields: of("Methods"), status: 501, change: func(q *exchange) bool { q.Method = "ADMITTEST"; return true }},

	{fields: of("Auth"), status: 400, change: func(q *exchange) bool {
		q.as = nobody
		putTwo(q.Request, q.to.Chain.Sources[0])
		return true
	}},
	{fields: of("Auth"), status: 401, change: func(q *exchange) bool { q.as = nobody; return true }},
	{fields: of("Auth"), status: 401, change: unknownKey},
	{fields: of("Auth"), status: 429, when: often, change: func(q *exchange) bool {
		q.uses(q.to.Chain.Throttle.Burst)
		return unknownKey(q)
	}},
	{fields: of("Auth"), status: 503, change: func(q *exchange) bool { q.late = true; return unknownKey(q) }},
	{fields: of("Auth", "Identity"), status: 403, change: from(elsewhere)},
	{fields: of("Scopes"), status: 403, change: from(unscoped)},
	{fields: of("AtLeast", "Features"), status: 402, change: from(unplanned)},
	{fields: of("Limiter"), status: 429, when: often, change: func(q *exchange) bool {
		q.as, q.times = limited, mostRequests
		return true
	}},
	{fields: of("Quotas"), status: 429, when: often, change: func(q *exchange) bool {
		q.as, q.times = metered, mostRequests
		return true
	}},

	{fields: of("Accept", "Negotiator"), status: 406, change: func(q *exchange) bool { q.Header.Set("Accept", otherType); return true }},
	{fields: of("ContentType", "ContentTypes"), status: 400, change: func(q *exchange) bool {
		q.with(strings.NewReader("x"), 1)
		q.Header.Add("Content-Type", otherType)
		return true
	}},
	{fields: of("ContentType", "ContentTypes"), status: 415, change: wrongType},
	{fields: of("ContentType", "ContentTypes"), status: 415, change: func(q *exchange) bool {
		q.with(strings.NewReader("x"), 1)
		q.Header.Set("Content-Encoding", "x-admittest")
		return true
	}},
	{fields: of("MaxBody"), status: 413, change: func(q *exchange) bool {
		q.with(strings.NewReader("x"), q.to.Chain.MaxBody+1)
		return true
	}},
	{fields: of("MaxBody", "Shedder", "BodyTimeout", "Timeout", "HandlerTimeout"), status: 400, handler: true, change: func(q *exchange) bool {
		q.with(broken{io.ErrUnexpectedEOF}, 2)
		q.standIn = reads
		return true
	}},
	{fields: of("BodyTimeout"), status: 408, handler: true, when: waiting, takes: bodyWait, change: func(q *exchange) bool {
		q.stall()
		q.standIn = reads
		return true
	}},
	// These come after BodyTimeout, which has the same status: its real timeout proves more.
	{fields: of("MaxBody", "Shedder", "Timeout", "HandlerTimeout"), status: 408, handler: true, when: crowded, change: func(q *exchange) bool {
		q.with(broken{os.ErrDeadlineExceeded}, 1) // as Server.ReadTimeout ends it
		q.standIn = reads
		return true
	}},
	{fields: of("Timeout", "HandlerTimeout"), status: 503, handler: true, when: waiting, takes: firstByte, change: func(q *exchange) bool {
		q.standIn = waits
		return true
	}},

	{fields: of("mux"), status: 400, change: noResource},
	{fields: of("mux"), status: 404, change: func(*exchange) bool { return true }},
	{fields: of("mux"), status: 405, otherMethod: true, change: wrongMethod},
	{fields: of("HandlerFunc"), status: 503, change: func(q *exchange) bool { q.standIn = tooLate; return q.to.Handled }},

	// Errors of the handlers of a service: of Decode and ParseForm, or since there is no
	// resource named admittest.
	{fields: of("handler"), status: 404, change: func(q *exchange) bool {
		q.standIn = nil
		return q.Method == http.MethodGet // other methods may change something
	}},
	{fields: of("handler"), status: 400, change: ownHandler("%zz")},           // neither JSON nor a form
	{fields: of("handler"), status: 401, handler: true, change: from(nobody)}, // of an Identity
	{fields: of("handler"), status: 408, change: func(q *exchange) bool {
		q.with(broken{os.ErrDeadlineExceeded}, 1)
		return ownHandler("")(q)
	}},
	{fields: of("handler"), status: 413, change: func(q *exchange) bool {
		q.with(strings.NewReader("x"), 1<<40)
		return ownHandler("")(q)
	}},
	{fields: of("handler"), status: 415, change: func(q *exchange) bool { return wrongType(q) && ownHandler("")(q) }},
	{fields: of("handler"), status: 422, change: ownHandler(`"admittest"`)},
	{fields: of("handler"), status: 422, change: ownHandler(`{"admittest":1}`)},
}

// needsHandler reports whether a row can be reached only in a handler.
func needsHandler(r published.Row) bool {
	needs := false
	for _, a := range attempts {
		if a.status == r.Status && slices.Contains(a.fields, r.Field) {
			if !a.handler {
				return false
			}
			needs = true
		}
	}
	return needs
}

func of(fields ...string) []string { return fields }

func bodyWait(c published.Chain) time.Duration { return c.BodyWait }

func firstByte(c published.Chain) time.Duration { return c.FirstByte }

// from changes the caller of a request.
func from(as caller) func(*exchange) bool {
	return func(q *exchange) bool { q.as = as; return true }
}

// ownHandler lets the handler of the service answer a request with a body. An empty text leaves
// the body as it is.
func ownHandler(text string) func(*exchange) bool {
	return func(q *exchange) bool {
		q.standIn = nil
		if text != "" {
			q.with(strings.NewReader(text), int64(len(text)))
		}
		if q.Header.Get("Content-Type") == "" {
			q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		q.Method = methodOf(q.to, http.MethodPost, http.MethodPut, http.MethodPatch)
		return true
	}
}

// uses sends the request often enough to use up a limit of that many requests, which refills
// meanwhile.
func (q *exchange) uses(up int) {
	if q.times = mostRequests; up >= mostRequests {
		q.times++ // too often
	}
}

// otherType is a media type that no service has.
const otherType = "application/x-admittest-other"

func wrongType(q *exchange) bool {
	q.with(strings.NewReader("x"), 1)
	q.Header.Set("Content-Type", otherType)
	return true
}

func wrongMethod(q *exchange) bool {
	for _, m := range []string{http.MethodTrace, "SEARCH", "MKCOL"} {
		if !slices.Contains(q.to.Methods, m) {
			q.Method = m
			return true
		}
	}
	return false
}

func unknownKey(q *exchange) bool {
	q.as = nobody
	put(q.Request, q.to.Chain.Sources[0], "admittest-"+strconv.FormatUint(rand.Uint64(), 36))
	return true
}

// comeTogether sends so many requests at once that there is no place for one of them.
func comeTogether(q *exchange) bool {
	f := q.to.Chain.InFlight
	q.crowd = crowd{size: f.Max + f.Queue + 1, answered: f.Max + 1}
	if f.PerAddress > 0 {
		q.crowd = crowd{size: f.PerAddress + 1, answered: min(f.PerAddress, f.Max) + 1, oneAddress: true}
	}
	return true
}

func waitForPlace(c published.Chain) time.Duration { return c.Shedder.Interval }

// noResource makes a request that a mux rejects, whatever its patterns.
func noResource(q *exchange) bool {
	q.URL.Path, q.RequestURI = "*", "*"
	return q.to.Pattern == ""
}

// refusedWithPanic makes a request that is rejected, and whose body panics meanwhile: an early
// response reads what the client still sends. It needs no handler.
func refusedWithPanic(q *exchange) bool {
	q.as = nobody
	if q.to.Method == "" && len(q.to.Methods) > 0 {
		wrongMethod(q)
	}
	q.Header.Set("Accept", otherType)
	q.Header.Set("Content-Type", otherType)
	q.with(&panicky{}, 1)
	return true
}

// leastByAddress returns the smallest number of requests that uses up a limit of an
// AddressLimiter.
func leastByAddress(c published.Chain) int {
	least := math.MaxInt
	for _, limits := range c.Limits {
		for _, l := range limits.Limits {
			if limits.Field == "AddressLimiter" {
				least = min(least, l.Burst)
			}
		}
	}
	return least
}
