package admit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
)

// ParseForm parses the query and the body of r into r.Form, r.PostForm and r.MultipartForm, as
// net/http's ParseMultipartForm does. The body is application/x-www-form-urlencoded or
// multipart/form-data. Fields and up to maxMemory bytes of the files are kept in memory. The
// rest is in temporary files, which the outermost middleware of this package removes when the
// request ends. Without a middleware, or if a handler of others inside it copies the request,
// call r.MultipartForm.RemoveAll.
//
// An error that the client has caused is an *Error:
//
//   - 400 for a query or a body that is malformed, a body that is cut short or has no boundary,
//     two Content-Types, and a QUERY with a body and no Content-Type (RFC 10008 §2);
//   - 408 if a BodyTimeout or Server.ReadTimeout has ended the read;
//   - 413 if the body is larger than the MaxBody around it allows or, without one, than 1 MiB
//     and maxMemory, or if it has more fields and parts than net/http accepts;
//   - 415, with Accept, for a body with another Content-Type or none (RFC 9110 §15.5.16).
//
// Any other error is the server's, such as a temporary file that cannot be written. After an
// error the form is empty.
//
// A request without a body has the fields of its query. The body of a GET or HEAD is not read,
// since it has no meaning (RFC 9110 §9.3.1) and caches ignore it. With any other method, also
// DELETE and QUERY, it is read. ParseForm may be called again: it returns nil after success and
// an error after a failure. If r.ParseForm or r.FormValue has parsed the form before, that
// result is used, without the error that FormValue has hidden.
func ParseForm(r *http.Request, maxMemory int64) error {
	switch {
	case formFailed(r):
		return errFormMalformed.WithCause(errors.New("admit: ParseForm has failed before"))
	case r.MultipartForm != nil: // parsed already, or read by MultipartReader, which is a mistake of the handler
		return r.ParseMultipartForm(maxMemory)
	}
	err := parseForm(r, maxMemory)
	if err != nil {
		// The form is empty and not nil, or net/http would parse the rest of the body.
		r.Form, r.PostForm, r.MultipartForm = url.Values{}, url.Values{}, &multipart.Form{}
	}
	return err
}

// formFailed reports whether ParseForm has failed: the maps of net/http's forms are not nil.
func formFailed(r *http.Request) bool {
	return r.MultipartForm != nil && r.MultipartForm.Value == nil && r.MultipartForm.File == nil
}

func parseForm(r *http.Request, maxMemory int64) error {
	form := r.Form
	if form == nil {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return errQueryMalformed.WithCause(err)
		}
		form = joinValues(r.PostForm, query)
	}
	values, parts, err := parseBody(r, max(maxMemory, 0))
	switch {
	case err != nil:
		return err
	case parts == nil:
		form = joinValues(values, form)
	default: // net/http puts the query first for these
		values = parts.Value
		form = joinValues(form, values)
	}
	r.Form, r.PostForm, r.MultipartForm = form, joinValues(r.PostForm, values), parts
	return nil
}

// joinValues returns the values of both, with those of a first.
func joinValues(a, b url.Values) url.Values {
	both := make(url.Values, len(a)+len(b))
	for _, values := range []url.Values{a, b} {
		for name, v := range values {
			both[name] = append(both[name], v...)
		}
	}
	return both
}

// parseBody reads the form in the body of r. A multipart form is returned in parts. A request
// without a body has no values.
func parseBody(r *http.Request, maxMemory int64) (values url.Values, parts *multipart.Form, err error) {
	source, length := r.Body, r.ContentLength
	if source == nil || r.Method == http.MethodGet || r.Method == http.MethodHead {
		source, length = http.NoBody, 0
	}
	limit, limited := bodyLimit(r.Context())
	if !limited {
		limit = max(maxDecode, maxMemory)
	}
	boundary, refusal := formType(r)
	parsed := refusal == nil && boundary == "" && r.PostForm != nil && parsesBody(r.Method) // by this package or net/http
	switch {
	case parsed && length <= maxParsed && length >= 0:
		return nil, nil, nil
	case refusal != nil && length > 0:
		return nil, nil, refusal
	case length > limit:
		return nil, nil, errBodyTooLarge
	}

	body := &formBody{r: http.MaxBytesReader(nil, source, limit)}
	switch {
	case refusal != nil:
		if body.skip(1); body.n > 0 {
			err = refusal
		}
	case boundary == "":
		values, err = body.urlencoded()
		if body.n > 0 && parsed {
			err = errBodyTooLarge.WithCause(errors.New("admit: ParseForm: net/http has parsed the form before, and has stopped at 10 MB"))
		}
	default:
		parts, err = body.multipart(boundary, maxMemory)
	}
	if body.err != nil {
		err = bodyFault(body.err) // whatever error the parser has returned
	}
	if err != nil {
		if parts != nil {
			_ = parts.RemoveAll()
		}
		return nil, nil, err
	}
	return values, parts, nil
}

// maxParsed is the size at which the ParseForm of net/http stops, without an error.
const maxParsed = 10 << 20

// parsesBody reports whether the ParseForm of net/http reads the body.
func parsesBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

var formTypes = func() *ContentTypes {
	c, err := NewContentTypes(ContentTypesConfig{Allow: []string{"application/x-www-form-urlencoded", "multipart/form-data"}})
	must(err)
	return c
}()

// formType returns the boundary of a multipart form, or "" for an urlencoded one, or the reason
// why a body must be rejected.
func formType(r *http.Request) (boundary string, refusal error) {
	lines := r.Header["Content-Type"]
	if len(lines) > 1 {
		return "", errTwoContentTypes
	}
	fault := faultMissing
	if len(lines) == 1 {
		fault = formTypes.check(lines[0])
	}
	if fault != faultNone {
		return "", formTypes.refusals[fault].of(r.Method)
	}
	mediaType, params, err := mime.ParseMediaType(lines[0])
	switch {
	case err != nil:
		return "", formTypes.refusals[faultMalformed].of(r.Method)
	case mediaType != "multipart/form-data":
		return "", nil
	case params["boundary"] == "":
		return "", errNoBoundary
	}
	return params["boundary"], nil
}

// formBody is a body that notes how many bytes have come, and the error that ended it early.
type formBody struct {
	r   io.Reader
	n   int64
	err error
}

func (b *formBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	if err != nil && err != io.EOF && b.err == nil {
		b.err = err
	}
	return n, err
}

// skip reads up to n bytes.
func (b *formBody) skip(n int64) { _, _ = io.CopyN(io.Discard, b, n) }

func (b *formBody) urlencoded() (url.Values, error) {
	var text strings.Builder
	if _, err := io.Copy(&text, b); err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(text.String())
	switch {
	case err == nil:
		return values, nil
	case tooManyValues(text.String()):
		return nil, errBodyTooLarge.WithCause(err)
	default:
		return nil, errFormMalformed.WithCause(err)
	}
}

// tooManyValues reports whether text has more values than net/url accepts. That error has no
// type, but a text of separators alone is never malformed.
func tooManyValues(text string) bool {
	_, err := url.ParseQuery(strings.Repeat("&", strings.Count(text, "&")))
	return err != nil
}

func (b *formBody) multipart(boundary string, maxMemory int64) (*multipart.Form, error) {
	form, err := multipart.NewReader(b, boundary).ReadForm(maxMemory)
	var file *fs.PathError
	switch {
	case err == nil:
		_, _ = io.Copy(io.Discard, b) // text after the form counts too, and may be cut short
		return form, nil
	case b.n == 0: // no body
		return &multipart.Form{Value: map[string][]string{}, File: map[string][]*multipart.FileHeader{}}, nil
	case errors.Is(err, multipart.ErrMessageTooLarge):
		return nil, errBodyTooLarge.WithCause(err)
	case errors.As(err, &file), errors.Is(err, io.ErrShortWrite):
		return nil, fmt.Errorf("admit: ParseForm: %w", err)
	default:
		return nil, errFormMalformed.WithCause(err)
	}
}

var (
	errQueryMalformed = NewError(http.StatusBadRequest, "The query of the URL is malformed.")
	errFormMalformed  = NewError(http.StatusBadRequest, "The request body is not a well-formed form.")
)
