package admit

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// ConfigError is one problem of a configuration. The error of a constructor or of Policy.Chain,
// and the value of a panic about a configuration, join all problems: errors.As finds the first,
// and the method Unwrap() []error of the joined error returns each. If a value with problems is
// used in several places, each place reports them under its own path, so collect the error of
// the Policy. A KeyStore returns a ConfigError for a key that it has but cannot use: see
// ErrKeyNotFound.
type ConfigError struct {
	// Field is the path of the setting, starting at the configuration or function:
	// AuthConfig.Store, Methods[1], Policy.Limiter.Limits[0].Requests.
	Field string
	// Reason says what is wrong and what to do. Field and Reason together make a sentence.
	Reason string
}

// Error returns Field and Reason.
func (e *ConfigError) Error() string { return "admit: " + e.Field + " " + e.Reason }

// faults collects the problems of a configuration. Each is a *ConfigError.
type faults []error

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, &ConfigError{field, fmt.Sprintf(format, args...)})
}

// time adds a problem for a time without a unit: a bare number is nanoseconds.
func (f *faults) time(field string, d time.Duration) {
	if d > 0 && d < shortest {
		f.add(field, "is %v; a number alone is nanoseconds: give it a unit, such as 10*time.Second (at least %v)", d, shortest)
	}
}

// shortest is the shortest time that a configuration accepts. Nothing over a network is faster.
const shortest = time.Millisecond

// within adds the problems of a value in a field. The path of each then begins with that field,
// and not with the type of the value.
func (f *faults) within(field string, err error) {
	f.moved(err, func(path string) string {
		if i := strings.IndexAny(path, ".["); i >= 0 {
			return field + path[i:]
		}
		return field
	})
}

// renamed adds problems under another path, for a caller who has given the value in a simpler
// form, such as "Accept" for "NegotiatorConfig.Offers".
func (f *faults) renamed(from, to string, err error) {
	f.moved(err, func(path string) string {
		if rest, ok := strings.CutPrefix(path, from); ok {
			return to + rest
		}
		return path
	})
}

// moved adds the problems of err, which faults.err has joined, each under another path.
func (f *faults) moved(err error, path func(string) string) {
	if err == nil {
		return
	}
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		c := err.(*ConfigError)
		*f = append(*f, &ConfigError{path(c.Field), c.Reason})
	}
}

// configFault returns the error for a single problem.
func configFault(field, format string, args ...any) error {
	var f faults
	f.add(field, format, args...)
	return f.err()
}

// value adds the problem of a value given by the user: a nil pointer or function in an
// interface, or a value of this package that cannot serve.
func (f *faults) value(field string, v any) {
	if isNil(v) {
		f.add(field, "is a nil %T; check the error of the function that makes it", v)
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

// err joins the problems, if there are any.
func (f faults) err() error { return errors.Join(f...) }

// renamed is faults.renamed for the panic of a simple form.
func renamed(from, to string, err error) error {
	var f faults
	f.renamed(from, to, err)
	return f.err()
}

// made is part of each value that only its constructor can make. A constructor that fails
// returns a value too, which has the error and cannot serve: if the caller ignores the error,
// the service does not start, instead of starting without protection.
type made struct {
	ok  bool
	err error
}

// fault returns why a value of the named type cannot serve, or nil.
func (m *made) fault(name string) error {
	switch {
	case m != nil && m.err != nil:
		return m.err
	case m == nil || !m.ok:
		return configFault(name, "was not made by New%s, and cannot work; use New%[1]s", name)
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
