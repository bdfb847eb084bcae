package admit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"unicode/utf8"

	"github.com/admit-go/admit/internal/jsonfault"
	"github.com/admit-go/admit/internal/mediatype"
)

// HandlerFunc is a handler that returns its error instead of writing it. As an http.Handler, it
// writes the error with [WriteError].
type HandlerFunc func(http.ResponseWriter, *http.Request) error

// ServeHTTP calls f, and writes the error that f returns as WriteError does.
func (f HandlerFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	noteRoute(r)
	w = track(w)
	if err := f(w, r); err != nil {
		WriteError(w, r, err)
	}
}

// Success writes {"result":"success","data":...} with a 2xx status. Nil data is left out, and 204
// and 205 have no body. A Content-Type that is already set stays if it is application/json or
// ends in +json (RFC 6839 §3.1); otherwise Success sets application/json. For data that
// encoding/json cannot encode, and for a status outside of 200 to 299, it writes nothing and
// returns an error, which a HandlerFunc should return.
func Success(w http.ResponseWriter, r *http.Request, status int, data any) error {
	if status < 200 || status > 299 {
		return fmt.Errorf("admit: Success with the status %d: use a status from 200 to 299", status)
	}
	if status == http.StatusNoContent || status == http.StatusResetContent {
		w.WriteHeader(status)
		return nil
	}
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	body := append((*buf)[:0], `{"result":"success"`...)
	if data != nil {
		var err error
		if body, err = appendValue(append(body, `,"data":`...), data); err != nil {
			return fmt.Errorf("admit: Success: %w", err)
		}
	}
	body = append(body, '}', '\n')
	*buf = body

	h := w.Header()
	values := [...]string{"application/json", "nosniff", strconv.Itoa(len(body))} // one allocation for all
	if !isJSON(h["Content-Type"]) {
		h["Content-Type"] = values[0:1:1]
	}
	h["X-Content-Type-Options"] = values[1:2:2]
	h["Content-Length"] = values[2:3:3]
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("admit: Success: %w", err)
	}
	return nil
}

// isJSON reports whether there is one Content-Type, and it is a JSON type.
func isJSON(lines []string) bool {
	if len(lines) != 1 {
		return false
	}
	t, err := mediatype.Parse(lines[0])
	return err == nil && t.IsJSON()
}

// maxDecode is the largest body in bytes, if no MaxBody bounds it.
const maxDecode = 1 << 20

// Decode reads the body of r as one JSON value, as encoding/json does with DisallowUnknownFields.
// A byte order mark before the value is ignored (RFC 8259 §8.1).
//
// The error is an *Error with one of these statuses:
//   - 400: the body has no value, more than one, or is malformed or cut off.
//   - 408: the body is too slow for a BodyTimeout around.
//   - 413: the body is larger than a MaxBody around allows or, without one, than 1 MiB.
//   - 422: a member has the wrong type, or T does not have it. Fields has the path of each. At
//     most 20 problems are listed, and none more than 10,000 values after the first one; the
//     message says so if there may be more.
//   - 500: encoding/json cannot decode into a T.
//
// A JSON array that is longer than a Go array is 422; a shorter one leaves the rest zero. The
// value null is 422, unless T is a pointer, an interface, or has an UnmarshalJSON. For members,
// null means the same as in encoding/json.
//
// If an UnmarshalJSON or UnmarshalText returns an *Error, its message is that of the member, and
// so is its code if it has one of its own. Its Fields are listed with the path of the member in
// front. If its status is 500 or above, Decode returns that error itself.
func Decode[T any](r *http.Request) (T, error) {
	var v T
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	body, err := readBody(r, (*buf)[:0])
	*buf = body
	if err != nil {
		return v, err
	}
	if err := decode(body, &v); err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

// readBody appends the body to b.
func readBody(r *http.Request, b []byte) ([]byte, error) {
	if r.Body == nil {
		return b, nil
	}
	limit := int64(maxDecode)
	if outer, limited := bodyLimit(r.Context()); limited {
		limit = outer // the body itself enforces it, unless a handler has replaced the body
	}
	if r.ContentLength > limit {
		return b, errBodyTooLarge
	}
	src := io.LimitReader(r.Body, max(limit, limit+1)) // one byte more, unless that overflows
	buf := bytes.NewBuffer(b)
	_, err := buf.ReadFrom(src)
	b = buf.Bytes()

	switch {
	case err != nil:
		return b, bodyFault(err)
	case int64(len(b)) > limit:
		return b, errBodyTooLarge
	}
	return b, nil
}

func decode(body []byte, v any) error {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if len(bytes.TrimLeft(body, " \t\r\n")) == 0 {
		return errBodyEmpty
	}
	if !utf8.Valid(body) {
		return errBodyMalformed.WithCause(errors.New("the body is not UTF-8"))
	}
	r := jsonfault.NewReader(body)
	err := r.Decode(v)
	t := reflect.TypeOf(v).Elem()
	var report jsonfault.Report
	switch {
	case errors.Is(err, jsonfault.ErrSyntax):
		return errBodyMalformed.WithCause(err)
	case !r.AtEnd():
		return errBodyTrailing
	case err == nil:
		if report = jsonfault.Forgiven(body, t); len(report.Faults) == 0 {
			return nil
		}
		err = errors.New("encoding/json accepts the value, but it does not fit the type")
	default:
		if e := errorOf(err); e != nil && e.complete().Status >= 500 {
			return e
		}
		report = jsonfault.Explain(body, t)
	}
	return invalid(report, err)
}

// invalid returns the refusal of a body. What a type with its own UnmarshalJSON reports is for
// the client, unless it is a failure.
func invalid(report jsonfault.Report, cause error) error {
	if report.Type != nil {
		return errInternal.WithCause(fmt.Errorf("admit: Decode: %w", report.Type))
	}
	fields := make([]FieldError, 0, len(report.Faults))
	for _, f := range report.Faults {
		var e *Error
		if f.Err != nil {
			e = errorOf(f.Err)
		}
		if e == nil {
			fields = append(fields, FieldError{Path: f.Path, Code: f.Code, Message: f.Message})
			continue
		}
		c := e.complete()
		if c.Status >= 500 {
			return e
		}
		for _, inner := range c.Fields {
			inner.Path = joinPath(f.Path, inner.Path)
			fields = append(fields, inner)
		}
		if len(c.Fields) > 0 {
			continue
		}
		if c.Code != codeOf(c.Status) {
			f.Code = c.Code
		}
		if e.Message != "" {
			f.Message = e.Message
		}
		fields = append(fields, FieldError{Path: f.Path, Code: f.Code, Message: f.Message})
	}
	e := errBodyInvalid
	if report.Cut || len(fields) > jsonfault.MaxFaults {
		e = errBodyInvalidCut
	}
	e = e.WithCause(cause)
	e.Fields = fields[:min(len(fields), jsonfault.MaxFaults)]
	return e
}

// joinPath puts the path of a value in front of a path within it.
func joinPath(outer, inner string) string {
	if outer != "" && inner != "" && inner[0] != '[' {
		outer += "."
	}
	return jsonfault.CutPath(outer + inner)
}

var (
	errBodyEmpty     = NewError(http.StatusBadRequest, "The request body is empty; it must be one JSON value.")
	errBodyMalformed = NewError(http.StatusBadRequest, "The request body is not well-formed JSON.")
	errBodyTrailing  = NewError(http.StatusBadRequest, "The request body has more than one JSON value.")
	errBodyInvalid   = NewError(http.StatusUnprocessableEntity, "The request body has members that are not valid.")

	errBodyInvalidCut = NewError(http.StatusUnprocessableEntity, "The request body has members that are not valid; these are the first.")
)
