package admit

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// ConfigError is one fault of a configuration. The error of a constructor, of Policy.Chain,
// or of a panic about a configuration joins all of them: errors.As finds the first, and the
// method Unwrap() []error of the joined error returns each. What one value has wrong, each
// that it stands in reports too, under a path of its own: collect the error of the Policy.
// A KeyStore returns one for a key that it has and cannot use: see ErrKeyNotFound.
type ConfigError struct {
	// Field is the path of what is wrong, from what was being made, a configuration or a
	// function: AuthConfig.Store, Methods[1], Policy.Limiter.Limits[0].Requests.
	Field string
	// Reason says what is wrong and what to do. It is a sentence with the Field before it.
	Reason string
}

// Error returns the Field and the Reason.
func (e *ConfigError) Error() string { return "admit: " + e.Field + " " + e.Reason }

// faults collects what is wrong with a configuration: each is a *ConfigError.
type faults []error

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, &ConfigError{field, fmt.Sprintf(format, args...)})
}

// time adds a fault for a time that was meant as another: a bare number is nanoseconds.
func (f *faults) time(field string, d time.Duration) {
	if d > 0 && d < shortest {
		f.add(field, "is %v; a number alone is nanoseconds: write %d*time.Second, or a time of at least %v", d, d, shortest)
	}
}

// shortest is the least time that a configuration takes. Nothing over a network is faster.
const shortest = time.Millisecond

// within adds the faults of a value that stands in a field: the path of each begins with
// that field then, and not with the name of what was made.
func (f *faults) within(field string, err error) {
	f.moved(err, func(path string) string {
		if i := strings.IndexAny(path, ".["); i >= 0 {
			return field + path[i:]
		}
		return field
	})
}

// renamed adds faults whose path begins otherwise for who has given the value in a simpler
// form, such as "Accept" for "NegotiatorConfig.Offers".
func (f *faults) renamed(from, to string, err error) {
	f.moved(err, func(path string) string {
		if rest, ok := strings.CutPrefix(path, from); ok {
			return to + rest
		}
		return path
	})
}

// moved adds the faults of err, which faults.err has joined, each under another path.
func (f *faults) moved(err error, path func(string) string) {
	if err == nil {
		return
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		c := err.(*ConfigError)
		*f = append(*f, &ConfigError{path(c.Field), c.Reason})
	}
}

// configFault is the error of one fault.
func configFault(field, format string, args ...any) error {
	var f faults
	f.add(field, format, args...)
	return f.err()
}

// value adds what is wrong with a value that somebody has given: a nil pointer or function
// in an interface, or a value of this package that cannot serve.
func (f *faults) value(field string, v any) {
	if isNil(v) {
		f.add(field, "is a nil %T; look at the error of what was to make it", v)
		return
	}
	if v, ok := v.(interface{ fault() error }); ok {
		f.within(field, v.fault())
	}
}

// isNil reports whether v is nil, or a nil pointer or function in an interface.
func isNil(v any) bool {
	switch rv := reflect.ValueOf(v); rv.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Func:
		return rv.IsNil()
	default:
		return false
	}
}

// err joins the faults, if there are any.
func (f faults) err() error { return errors.Join(f...) }

// renamed is for a panic of a simple form: see faults.renamed.
func renamed(from, to string, err error) error {
	var f faults
	f.renamed(from, to, err)
	return f.err()
}

// made is in each value that only its constructor can make. With an error the constructor
// returns a value too, which has the error and cannot serve: who does not look at it gets
// a service that does not start, instead of one without a lock on the door.
type made struct {
	ok  bool
	err error
}

// fault returns why a value of the type called name cannot serve, or nil.
func (m *made) fault(name string) error {
	switch {
	case m != nil && m.err != nil:
		return m.err
	case m == nil || !m.ok:
		return configFault(name, "was not made by New%s; nothing else makes one that works", name)
	default:
		return nil
	}
}

// must panics with the error of a value that cannot serve.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
