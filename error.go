package admit

import (
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"strconv"
	"time"
)

// Error is a rejection or a failure as the client sees it: a status (400 to 599), a stable
// snake_case Code for programs, and a Message for people. An empty Code or Message is derived
// from the status. Any other status is sent as 500. Do not change an Error once it is in use,
// so that sentinels can be shared between goroutines. The cause is never sent: ErrorWriter logs
// it with a 5xx, AccessLog with any status.
type Error struct {
	Status     int
	Code       string
	Message    string
	Fields     []FieldError   // the invalid fields of the content, mostly for 422
	RetryAfter time.Duration  // sent in whole seconds, rounded up; 0: not sent
	Header     http.Header    // copied to the response; Vary is merged
	Meta       map[string]any // further members of the body, such as upgrade_url

	cause  error
	origin *Error   // the Error that this is a copy of
	limits []string // the names of the exceeded limits
}

// FieldError says what is wrong with one member of the request's content. Path has the form
// items[0].price.
type FieldError struct {
	Path    string `json:"path"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// NewError returns an Error whose Code is derived from the status. An empty message means the
// default message of the status. It panics if the status is not 400 to 599.
func NewError(status int, message string) *Error {
	if status < 400 || status > 599 {
		panic(fmt.Sprintf("admit: NewError(%d, ...): an error has a status from 400 to 599", status))
	}
	return &Error{Status: status, Code: codeOf(status), Message: message}
}

// WithCause returns a copy of e with a cause, which is for the logs and never sent.
func (e *Error) WithCause(cause error) *Error {
	c := *e
	c.cause, c.origin = cause, e
	return &c
}

// Error returns a description for logs, with the cause.
func (e *Error) Error() string {
	if e == nil {
		return "admit: an *Error that is nil"
	}
	c := e.complete()
	s := "admit: " + strconv.Itoa(c.Status) + " " + c.Code + ": " + c.Message
	if c.cause != nil {
		s += ": " + c.cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.cause
}

// Is reports whether target is e, or an Error that e is a copy of.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	for o := e; ok && o != nil; o = o.origin {
		if o == t {
			return true
		}
	}
	return false
}

// complete returns e, or a copy in which empty fields are derived from the status.
func (e *Error) complete() *Error {
	if e.Status >= 400 && e.Status <= 599 && e.Code != "" && e.Message != "" {
		return e
	}
	c := *e
	c.origin = e
	if c.Status < 400 || c.Status > 599 {
		c.Status = http.StatusInternalServerError
	}
	if c.Code == "" {
		c.Code = codeOf(c.Status)
	}
	if c.Message == "" {
		c.Message = messageOf(c.Status)
	}
	return &c
}

// retrySeconds returns the number in the header and in the body; 0 means that neither is sent.
func (e *Error) retrySeconds() int64 { return ceilSeconds(e.RetryAfter) }

// ceilSeconds rounds up, so that a client that waits that long has waited d.
func ceilSeconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d-1)/time.Second) + 1
}

// errStalled is what Write returns once WriteStall has cut the client. There is no client left
// to send an error to.
var errStalled = fmt.Errorf("admit: the client did not read the response in time: %w", os.ErrDeadlineExceeded)

var (
	errRequestTimeout = NewError(http.StatusRequestTimeout, "")
	errInternal       = NewError(http.StatusInternalServerError, "")
	errBodyTooLarge   = NewError(http.StatusRequestEntityTooLarge, "")
	errDeadline       = NewError(http.StatusServiceUnavailable, "The request took too long. Try again.")
	errNoBoundary     = NewError(http.StatusBadRequest, "The Content-Type of the multipart form has no boundary.")
	errNoFile         = NewError(http.StatusBadRequest, "The form does not have the file that this request needs.")
	errNotMultipart   = &Error{
		Status: http.StatusUnsupportedMediaType, Code: codeOf(http.StatusUnsupportedMediaType),
		Message: "The request is not a multipart form; send one of: multipart/form-data.",
		Header:  http.Header{"Accept": {"multipart/form-data"}},
	}
)

// formError returns the *Error for an error of net/http's methods for forms if the client
// caused it, else nil.
func formError(err error) *Error {
	switch {
	case errors.Is(err, http.ErrNotMultipart):
		return errNotMultipart
	case errors.Is(err, http.ErrMissingBoundary):
		return errNoBoundary
	case errors.Is(err, http.ErrMissingFile):
		return errNoFile
	case errors.Is(err, multipart.ErrMessageTooLarge):
		return errBodyTooLarge
	}
	return nil
}

// statusTexts has the code and the default message of each status of the contract.
var statusTexts = map[int]struct{ code, message string }{
	400: {"bad_request", "The request is malformed."},
	401: {"unauthorized", "The request needs valid credentials."},
	402: {"payment_required", "The request needs a plan that includes it."},
	403: {"forbidden", "The credentials do not allow this request."},
	404: {"not_found", "There is no such resource."},
	405: {"method_not_allowed", "The resource does not support this method."},
	406: {"not_acceptable", "The resource cannot be sent in an accepted media type."},
	408: {"request_timeout", "The request did not arrive in time."},
	409: {"conflict", "The request conflicts with the state of the resource."},
	413: {"body_too_large", "The request body is too large."},
	415: {"unsupported_media_type", "The resource does not accept this content type."},
	422: {"unprocessable", "The request is well formed, but its content is invalid."},
	429: {"too_many_requests", "There were too many requests. Try again later."},
	500: {"internal", "Something went wrong on our side."},
	501: {"not_implemented", "The method is not implemented."},
	502: {"bad_gateway", "An upstream service failed."},
	503: {"unavailable", "The service is temporarily unavailable. Try again later."},
	504: {"gateway_timeout", "An upstream service did not respond in time."},
}

// codeOf returns the code of a status: that of the contract, else the status text in
// snake_case, such as precondition_failed.
func codeOf(status int) string {
	if t, ok := statusTexts[status]; ok {
		return t.code
	}
	var code []byte
	for _, c := range []byte(http.StatusText(status)) {
		switch {
		case c >= 'A' && c <= 'Z':
			code = append(code, c+'a'-'A')
		case c >= 'a' && c <= 'z':
			code = append(code, c)
		case c == ' ' || c == '-':
			code = append(code, '_')
		}
	}
	if len(code) == 0 {
		return "error"
	}
	return string(code)
}

func messageOf(status int) string {
	if t, ok := statusTexts[status]; ok {
		return t.message
	}
	if text := http.StatusText(status); text != "" {
		return text + "."
	}
	return "The request failed."
}

// errorOf returns the *Error in the chain of err, or nil.
func errorOf(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		return nil
	}
	return e
}
