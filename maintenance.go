package admit

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Maintenance is a middleware that rejects every request with 503 and the code maintenance while
// it is on. The zero value is off. It may be switched while the server runs, for all handlers
// that it wraps, and is safe for concurrent use.
type Maintenance struct {
	until atomic.Pointer[time.Time] // nil: off
}

// On rejects requests until the given time, which clients get as Retry-After. After that time m
// is off without a call to Off. With the zero time m is on until Off, and responses have no
// Retry-After.
func (m *Maintenance) On(until time.Time) { m.until.Store(&until) }

// Off admits requests again.
func (m *Maintenance) Off() { m.until.Store(nil) }

// Wrap returns a handler that passes requests to next unless m is on.
func (m *Maintenance) Wrap(next http.Handler) http.Handler {
	if m == nil {
		panic("admit: Maintenance.Wrap: the Maintenance is nil; use new(Maintenance)")
	}
	return wrap("Maintenance.Wrap", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if err := m.check(); err != nil {
			WriteError(w, r, err)
			return
		}
		in.ServeHTTP(w, r)
	})
}

// check returns the refusal, or nil.
func (m *Maintenance) check() *Error {
	until := m.until.Load()
	if until == nil {
		return nil
	}
	if until.IsZero() {
		return errMaintenance
	}
	left := time.Until(*until)
	if left <= 0 {
		return nil
	}
	e := *errMaintenance
	e.RetryAfter = left
	return &e
}

var errMaintenance = &Error{
	Status:  http.StatusServiceUnavailable,
	Code:    "maintenance",
	Message: "The service is down for maintenance. Try again later.",
}

func maintenanceAnswers() []Answer {
	return []Answer{answer(errMaintenance, "The service is down for maintenance. The response has Retry-After if the end is known.", "Retry-After")}
}
