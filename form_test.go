package admit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

const (
	urlencoded = "application/x-www-form-urlencoded"
	formOfB    = "multipart/form-data; boundary=b"
	formTypes  = urlencoded + ", multipart/form-data"
)

// parsesForm answers with what ParseForm has found: the fields, those of the body, and the
// files.
func parsesForm(maxMemory int64) admit.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := admit.ParseForm(r, maxMemory); err != nil {
			return err
		}
		form, err := formText(r)
		if err != nil {
			return err
		}
		return admit.Success(w, r, http.StatusOK, abridged(form))
	}
}

// abridged keeps a large text out of JSON and messages.
func abridged(text string) string {
	if len(text) > 1000 {
		return fmt.Sprintf("%.20s and so on, %d bytes", text, len(text))
	}
	return text
}

// formText describes a parsed form.
func formText(r *http.Request) (string, error) {
	text := fmt.Sprint(r.Form, r.PostForm)
	if r.MultipartForm == nil {
		return text, nil
	}
	text += fmt.Sprint(r.MultipartForm.Value)
	for _, name := range slices.Sorted(maps.Keys(r.MultipartForm.File)) {
		for _, header := range r.MultipartForm.File[name] {
			f, err := header.Open()
			if err != nil {
				return "", err
			}
			content, err := io.ReadAll(f)
			if err := errors.Join(err, f.Close()); err != nil {
				return "", err
			}
			text += fmt.Sprintf(" %s:%s=%.20q(%d)", name, header.Filename, content, header.Size)
		}
	}
	return text, nil
}

// multipartOf makes a body with the boundary b: each part is name=value, or name:file=content.
func multipartOf(parts ...string) string {
	var b strings.Builder
	for _, part := range parts {
		name, value, _ := strings.Cut(part, "=")
		name, file, isFile := strings.Cut(name, ":")
		fmt.Fprintf(&b, "--b\r\nContent-Disposition: form-data; name=%q", name)
		if isFile {
			fmt.Fprintf(&b, "; filename=%q", file)
		}
		fmt.Fprintf(&b, "\r\n\r\n%s\r\n", value)
	}
	return b.String() + "--b--\r\n"
}

func TestParseForm(t *testing.T) {
	t.Parallel()
	large := "a=" + strings.Repeat("x", 11<<20)
	for name, test := range map[string]struct {
		method string // POST if empty
		query  string
		types  []string
		body   string
		status int
		form   string // what is in it, or the message
	}{
		"urlencoded":           {types: []string{urlencoded}, query: "a=q&b=q", body: "a=1&a=2&c", status: 200, form: "map[a:[1 2 q] b:[q] c:[]] map[a:[1 2] c:[]]"},
		"with a charset":       {types: []string{urlencoded + "; charset=UTF-8"}, body: "a=%C3%A9", status: 200, form: "map[a:[é]] map[a:[é]]"},
		"multipart":            {types: []string{formOfB}, query: "a=q", body: multipartOf("a=1", "f:x.txt=hello", "a=2"), status: 200, form: `map[a:[q 1 2]] map[a:[1 2]]map[a:[1 2]] f:x.txt="hello"(5)`},
		"quoted boundary":      {types: []string{`Multipart/Form-Data; boundary="b"`}, body: multipartOf("a=1"), status: 200, form: "map[a:[1]] map[a:[1]]map[a:[1]]"},
		"with an epilogue":     {types: []string{formOfB}, body: multipartOf("a=1") + "after", status: 200, form: "map[a:[1]] map[a:[1]]map[a:[1]]"},
		"multipart, no part":   {types: []string{formOfB}, body: "--b--\r\n", status: 200, form: "map[] map[]map[]"},
		"PUT":                  {method: "PUT", types: []string{urlencoded}, body: "a=1", status: 200, form: "map[a:[1]] map[a:[1]]"},
		"PATCH":                {method: "PATCH", types: []string{urlencoded}, body: "a=1", status: 200, form: "map[a:[1]] map[a:[1]]"},
		"DELETE":               {method: "DELETE", types: []string{urlencoded}, body: "a=1", status: 200, form: "map[a:[1]] map[a:[1]]"},
		"QUERY, no type":       {method: "QUERY", types: nil, body: "a=1", status: 400, form: "A QUERY needs a Content-Type; send one of: " + formTypes + "."},
		"QUERY":                {method: "QUERY", types: []string{urlencoded}, body: "a=1", status: 200, form: "map[a:[1]] map[a:[1]]"},
		"GET":                  {method: "GET", query: "a=q", status: 200, form: "map[a:[q]] map[]"},
		"GET with a body":      {method: "GET", query: "a=q", types: []string{urlencoded}, body: "a=1", status: 200, form: "map[a:[q]] map[]"},
		"GET, any body":        {method: "GET", query: "a=q", types: []string{jsonType}, body: "{}", status: 200, form: "map[a:[q]] map[]"},
		"no body":              {query: "a=q", status: 200, form: "map[a:[q]] map[]"},
		"no body, but a type":  {query: "a=q", types: []string{urlencoded}, status: 200, form: "map[a:[q]] map[]"},
		"no body, multipart":   {query: "a=q", types: []string{formOfB}, status: 200, form: "map[a:[q]] map[]map[]"},
		"no body, JSON":        {query: "a=q", types: []string{jsonType}, status: 200, form: "map[a:[q]] map[]"},
		"above 10 MB":          {types: []string{urlencoded}, body: large, status: 200, form: abridged(fmt.Sprintf("map[a:[%s]] map[a:[%[1]s]]", large[2:]))},
		"bad escape":           {types: []string{urlencoded}, body: "a=%zz", status: 400, form: "The request body is not a well-formed form."},
		"semicolon":            {types: []string{urlencoded}, body: "a=1;b=2", status: 400, form: "The request body is not a well-formed form."},
		"bad query":            {query: "a=%zz", types: []string{urlencoded}, body: "a=1", status: 400, form: "The query of the URL is malformed."},
		"bad query, no body":   {method: "GET", query: "a=%zz", status: 400, form: "The query of the URL is malformed."},
		"no boundary":          {types: []string{"multipart/form-data"}, body: multipartOf("a=1"), status: 400, form: "The Content-Type of the multipart form has no boundary."},
		"empty boundary":       {types: []string{`multipart/form-data; boundary=""`}, body: multipartOf("a=1"), status: 400, form: "The Content-Type of the multipart form has no boundary."},
		"other boundary":       {types: []string{"multipart/form-data; boundary=c"}, body: multipartOf("a=1"), status: 400, form: "The request body is not a well-formed form."},
		"long boundary":        {types: []string{"multipart/form-data; boundary=" + strings.Repeat("b", 5000)}, body: multipartOf("a=1"), status: 400, form: "The request body is not a well-formed form."},
		"malformed multipart":  {types: []string{formOfB}, body: "--b\r\nno header\r\n\r\n1\r\n--b--\r\n", status: 400, form: "The request body is not a well-formed form."},
		"cut multipart":        {types: []string{formOfB}, body: strings.TrimSuffix(multipartOf("a=1"), "--b--\r\n"), status: 400, form: "The request body is not a well-formed form."},
		"cut in a file":        {types: []string{formOfB}, body: multipartOf("f:x=hello")[:70], status: 400, form: "The request body is not a well-formed form."},
		"two types":            {types: []string{urlencoded, formOfB}, body: "a=1", status: 400, form: "The request has more than one Content-Type."},
		"JSON":                 {types: []string{jsonType}, body: "{}", status: 415, form: "The resource does not accept this content type; send one of: " + formTypes + "."},
		"multipart/mixed":      {types: []string{"multipart/mixed; boundary=b"}, body: multipartOf("a=1"), status: 415, form: "The resource does not accept this content type; send one of: " + formTypes + "."},
		"no type":              {body: "a=1", status: 415, form: "The request has a body but no Content-Type; send one of: " + formTypes + "."},
		"malformed type":       {types: []string{urlencoded + "; x"}, body: "a=1", status: 415, form: "The Content-Type is malformed; send one of: " + formTypes + "."},
		"other charset":        {types: []string{urlencoded + "; charset=iso-8859-1"}, body: "a=1", status: 415, form: "The resource does not accept this charset; send utf-8."},
		"larger than MaxBody":  {types: []string{urlencoded}, body: "a=" + strings.Repeat("x", 16<<20), status: 413, form: "The request body is too large."},
		"many values":          {types: []string{urlencoded}, body: strings.Repeat("a=1&", 20_000), status: 413, form: "The request body is too large."},
		"many parts":           {types: []string{formOfB}, body: multipartOf(slices.Repeat([]string{"a=1"}, 1001)...), status: 413, form: "The request body is too large."},
		"large multipart text": {types: []string{formOfB}, body: multipartOf(large), status: 413, form: "The request body is too large."},
		"large file":           {types: []string{formOfB}, body: multipartOf("f:x" + large[1:]), status: 200, form: `map[] map[]map[] f:x="xxxxxxxxxxxxxxxxxxxx"(11534336)`},
		"large epilogue":       {types: []string{formOfB}, body: multipartOf("a=1") + strings.Repeat("x", 16<<20), status: 413, form: "The request body is too large."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := url.ParseQuery(strings.Repeat("&", 20_000)); err == nil && name == "many values" {
				t.Skip("before Go 1.25.6 net/url takes any number")
			}
			for _, wire := range []string{"HTTP/1.1", "HTTP/2"} {
				for _, sized := range []bool{true, false} {
					s := serve(t, wire, admit.MaxBody(16<<20)(parsesForm(1<<10)))
					var body io.Reader = strings.NewReader(test.body)
					if !sized {
						body = io.MultiReader(body) // chunked, or without a Content-Length
					}
					r, err := http.NewRequestWithContext(t.Context(), orPOST(test.method), s.URL+"/?"+test.query, body)
					require.NoError(t, err)
					r.Header["Content-Type"] = test.types
					res, err := s.Client().Do(r)
					require.NoError(t, err)
					answered, err := io.ReadAll(res.Body)
					require.NoError(t, err)
					require.NoError(t, res.Body.Close())
					require.Equal(t, test.status, res.StatusCode, "%s, sized %t: %.200s", wire, sized, answered)
					if test.status == 200 {
						var got struct{ Data string }
						require.NoError(t, json.Unmarshal(answered, &got))
						assert.Equal(t, test.form, got.Data, "%s, sized %t", wire, sized)
						continue
					}
					assert.Equal(t, test.form, readEnvelope(t, res.StatusCode, res.Header, answered).Message)
					if test.status == 415 {
						for _, name := range []string{"Accept", "Accept-Post"} {
							assert.Equal(t, formTypes, res.Header.Get(name), name)
						}
					}
				}
			}
		})
	}
}

func orPOST(method string) string {
	if method == "" {
		return "POST"
	}
	return method
}

// Without a MaxBody the bound is 1 MiB, or maxMemory.
func TestParseFormWithoutMaxBody(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		maxMemory int64
		size      int
		status    int
	}{
		{-1, 1 << 20, 200},
		{0, 1 << 20, 200},
		{0, 1<<20 + 1, 413},
		{2 << 20, 2 << 20, 200},
		{2 << 20, 2<<20 + 1, 413},
	} {
		for _, sized := range []bool{true, false} {
			r := newRequest("POST", "/", "a="+strings.Repeat("x", test.size-2), "Content-Type", urlencoded)
			if !sized {
				r.ContentLength = -1
			}
			assert.Equal(t, test.status, status(parsesForm(test.maxMemory), r), "%+v", test)
		}
	}
	for _, maxMemory := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		r := newRequest("POST", "/", multipartOf("a=1", "f:x=1"), "Content-Type", formOfB)
		require.Equal(t, 200, status(parsesForm(maxMemory), r), maxMemory)
		require.NoError(t, r.MultipartForm.RemoveAll())
	}
	r := newRequest("POST", "/", "a="+strings.Repeat("x", 100), "Content-Type", urlencoded)
	r.ContentLength = -1
	assert.Equal(t, 413, status(admit.MaxBody(101)(parsesForm(1<<20)), r), "the smallest holds")
}

// A body that is refused for its type alone is not read.
func TestParseFormReadsNothingInVain(t *testing.T) {
	t.Parallel()
	unread := iotest.ErrReader(errors.New("read"))
	for name, test := range map[string]struct {
		contentType string
		length      int64
		status      int
	}{
		"other type": {"text/plain", 10, 415}, "no boundary": {"multipart/form-data", 10, 400}, "too large": {urlencoded, 2 << 20, 413},
	} {
		r := httptest.NewRequest("POST", "/", unread)
		r.ContentLength = test.length
		r.Header.Set("Content-Type", test.contentType)
		e, _ := refused(t, parsesForm(0), r, test.status)
		assert.NotContains(t, e.Message, "could not be read", name)
	}
}

func TestParseFormOfABodyThatEndsEarly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		status int
	}{
		"cut":            {io.ErrUnexpectedEOF, 400},
		"reset":          {&net.OpError{Op: "read", Err: errors.New("reset")}, 400},
		"a file's error": {&os.PathError{Op: "read", Err: os.ErrClosed}, 400},
		"ReadTimeout":    {os.ErrDeadlineExceeded, 408},
		"too large":      {&http.MaxBytesError{Limit: 1}, 413},
		"of a wrapper":   {admit.NewError(422, ""), 422},
	} {
		for contentType, body := range map[string]string{urlencoded: "a=1", formOfB: multipartOf("a=1", "f:x=1"), "": ""} {
			for cut := range len(body) + 1 {
				r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(body[:cut]), iotest.ErrReader(test.err)))
				r.ContentLength = -1
				if contentType != "" {
					r.Header.Set("Content-Type", contentType)
				}
				e, _ := refused(t, parsesForm(0), r, test.status)
				assert.NotEmpty(t, e.Message, "%s, %s", name, body[:cut])
			}
		}
	}
}

// What ends a read on a connection.
func TestParseFormOverTheWire(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		wrapper     admit.Middleware
		readTimeout time.Duration
		cut         bool
		status      int
	}{
		"cut":           {wrapper: admit.MaxBody(1000), cut: true, status: 400},
		"BodyTimeout":   {wrapper: admit.BodyTimeout{Grace: 100 * time.Millisecond}.Wrap, status: 408},
		"ReadTimeout":   {wrapper: admit.MaxBody(1000), readTimeout: 100 * time.Millisecond, status: 408},
		"both timeouts": {wrapper: admit.BodyTimeout{Grace: time.Minute}.Wrap, readTimeout: 100 * time.Millisecond, status: 408},
	} {
		for _, contentType := range []string{urlencoded, formOfB} {
			t.Run(name+" "+contentType, func(t *testing.T) {
				t.Parallel()
				answered := make(chan int, 1)
				ew := &admit.ErrorWriter{Logger: discardLogs, Observe: func(_ *http.Request, e *admit.Error) { answered <- e.Status }}
				s := serve(t, "HTTP/1.1", wrap(parsesForm(1000), ew.Wrap, test.wrapper),
					func(s *http.Server) { s.ReadTimeout = test.readTimeout })
				for attempt := 0; ; attempt++ {
					require.Less(t, attempt, 100, "the handler never ran")
					c := dial(t, s)
					_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 500\r\n\r\n%s", contentType, multipartOf("a=1")[:40])
					if test.cut {
						require.NoError(t, c.(*net.TCPConn).CloseWrite())
					}
					res, err := http.ReadResponse(bufio.NewReader(c), nil)
					if err == nil {
						require.NoError(t, res.Body.Close())
						assert.Equal(t, test.status, res.StatusCode)
						assert.Equal(t, test.status, <-answered)
						return
					}
					// A ReadTimeout closes, without an answer where the header came too late for it.
					require.NotZero(t, test.readTimeout, err)
					select {
					case status := <-answered:
						assert.Equal(t, test.status, status)
						return
					default:
					}
				}
			})
		}
	}
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		s := serve(t, "HTTP/2", wrap(parsesForm(1000), new(admit.ErrorWriter).Wrap, admit.BodyTimeout{Grace: 100 * time.Millisecond}.Wrap))
		body, never := io.Pipe()
		defer never.Close()
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, body)
		require.NoError(t, err)
		r.Header.Set("Content-Type", urlencoded)
		res, err := s.Client().Do(r)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, 408, res.StatusCode)
	})
}

func TestParseFormTwice(t *testing.T) {
	t.Parallel()
	requests := map[string]*http.Request{
		"urlencoded":  newRequest("POST", "/?q=1", "a=1", "Content-Type", urlencoded),
		"DELETE":      newRequest("DELETE", "/?q=1", "a=1", "Content-Type", urlencoded),
		"multipart":   newRequest("POST", "/?q=1", multipartOf("a=1", "f:x=1"), "Content-Type", formOfB),
		"no body":     newRequest("POST", "/?q=1", ""),
		"no boundary": newRequest("POST", "/", "x", "Content-Type", "multipart/form-data"),
		"bad escape":  newRequest("POST", "/", "a=%zz", "Content-Type", urlencoded),
		"bad query":   newRequest("POST", "/?a=%zz", "a=1", "Content-Type", urlencoded),
		"other type":  newRequest("POST", "/", "x", "Content-Type", "text/plain"),
		"too large":   newRequest("POST", "/", strings.Repeat("x", 2<<20), "Content-Type", urlencoded),
		// What is left of the body is a form.
		"a second form": newRequest("POST", "/", "--b\r\nx\r\n\r\n--b\r\n"+multipartOf("a=1"), "Content-Type", formOfB),
	}
	for name, r := range requests {
		for _, wrapper := range []admit.Middleware{admit.Recover, admit.RequestID, admit.MaxBody(1 << 20)} {
			r := r.Clone(t.Context())
			content, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			requests[name].Body, r.Body = io.NopCloser(bytes.NewReader(content)), io.NopCloser(bytes.NewReader(content))
			for _, length := range []int64{int64(len(content)), -1} {
				r := r.Clone(t.Context())
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(content)), length
				wrapper(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					first := admit.ParseForm(r, 1000)
					form, err := formText(r)
					assert.NoError(t, err)
					second := admit.ParseForm(r, 1000)
					assert.Equal(t, first == nil, second == nil, "%s: %v, then %v", name, first, second)
					again, err := formText(r)
					assert.NoError(t, err)
					assert.Equal(t, form, again, name)
					if first != nil {
						assert.Equal(t, url.Values{}, r.Form)
						_, _, err := r.FormFile("f")
						assert.Error(t, err)
					}
				})).ServeHTTP(httptest.NewRecorder(), r)
			}
		}
	}
}

// What net/http has parsed before, in a wrapper outside.
func TestParseFormAfterNetHTTP(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 11<<20)
	parses := map[string]func(*http.Request){
		"nothing":       func(*http.Request) {},
		"ParseForm":     func(r *http.Request) { _ = r.ParseForm() },
		"FormValue":     func(r *http.Request) { r.FormValue("a") },
		"PostFormValue": func(r *http.Request) { r.PostFormValue("a") },
		"ours":          func(r *http.Request) { _ = admit.ParseForm(r, 1000) },
	}
	for name, parse := range parses {
		for _, test := range []struct {
			method, contentType, body, want string
		}{
			{"POST", urlencoded, "a=1", "map[a:[1 q]] map[a:[1]]"},
			{"POST", urlencoded, "", "map[a:[q]] map[]"},
			{"DELETE", urlencoded, "a=1", "map[a:[1 q]] map[a:[1]]"},
			{"POST", formOfB, multipartOf("a=1"), "map[a:[q 1]] map[a:[1]]map[a:[1]]"},
		} {
			r := newRequest(test.method, "/?a=q", test.body, "Content-Type", test.contentType)
			parse(r)
			require.NoError(t, admit.ParseForm(r, 1000), name)
			got, err := formText(r)
			require.NoError(t, err)
			assert.Equal(t, test.want, got, "%s, %+v", name, test)
		}
		h := admit.MaxBody(16 << 20)(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			parse(r)
			return admit.ParseForm(r, 1000)
		}))
		stops := name != "nothing" && name != "ours" // at 10 MB; what remains is no form
		got := status(h, newRequest("POST", "/", "a="+large, "Content-Type", urlencoded))
		assert.Equal(t, map[bool]int{true: 413, false: 200}[stops], got, name)
	}

	r := newRequest("POST", "/?a=q", "")
	r.PostForm = url.Values{"a": {"1"}}
	require.NoError(t, admit.ParseForm(r, 0), "as tests set it")
	assert.Equal(t, url.Values{"a": {"1", "q"}}, r.Form)

	r = newRequest("POST", "/", multipartOf("a=1"), "Content-Type", formOfB)
	_, err := r.MultipartReader()
	require.NoError(t, err)
	var e *admit.Error
	err = admit.ParseForm(r, 0)
	require.Error(t, err)
	assert.False(t, errors.As(err, &e), "a mistake of the handler is no error of the client")
}

// Whatever the server leaves, a wrapper removes.
func TestParseFormLeavesNoFile(t *testing.T) {
	t.Parallel()
	policy := admit.Policy{MaxBody: 1 << 20, BodyTimeout: admit.BodyTimeout{Grace: time.Minute}, Timeout: time.Minute}
	for _, wire := range []string{"HTTP/1.1", "HTTP/2"} {
		for name, wrapper := range map[string]admit.Middleware{"Recover": admit.Recover, "Policy": policy.Wrap} {
			var file string
			s := serve(t, wire, wrapper(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
				if err := admit.ParseForm(r, 10); err != nil {
					return err
				}
				f, _, err := r.FormFile("f")
				if err != nil {
					return err
				}
				file = f.(*os.File).Name()
				return f.Close()
			})))
			res, body := do(t, s, "POST", "/", multipartOf("f:x="+strings.Repeat("x", 1000)), "Content-Type", formOfB)
			require.Equal(t, 200, res.StatusCode, "%s: %s", name, body)
			require.NotEmpty(t, file)
			assert.Eventually(t, func() bool { _, err := os.Stat(file); return os.IsNotExist(err) }, 10*time.Second, time.Millisecond, "%s, %s", wire, name)
		}
	}
}

// A disk that cannot be written is not the client's fault; and what a refused form has
// written is gone. It changes the environment, so it is not parallel.
func TestParseFormFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP"} { // TMP is that of Windows
		t.Setenv(name, dir)
	}
	file := "f:x=" + strings.Repeat("x", 1000)
	for name, body := range map[string]string{
		"cut":       multipartOf(file, file)[:1500],
		"malformed": strings.Replace(multipartOf(file, file), "--b--", "--b\r\nx\r\n\r\n--b--", 1),
		"too large": multipartOf(file) + strings.Repeat("x", 2<<20),
	} {
		r := newRequest("POST", "/", body, "Content-Type", formOfB)
		r.ContentLength = -1
		var e *admit.Error
		require.ErrorAs(t, admit.ParseForm(r, 10), &e, name)
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Empty(t, entries, name)
	}

	for _, name := range []string{"TMPDIR", "TMP"} {
		t.Setenv(name, dir+"/missing")
	}
	logger, logs := logged()
	h := (&admit.ErrorWriter{Logger: logger}).Wrap(parsesForm(10))
	e, _ := refused(t, h, newRequest("POST", "/", multipartOf(file), "Content-Type", formOfB), 500)
	assert.Equal(t, "internal", e.Code)
	assert.Contains(t, logs.String(), "admit: ParseForm: ")
	assert.Contains(t, logs.String(), "missing")
}

// The errors of net/http's own methods for forms, returned as they are, are the client's.
func TestFormErrorsOfNetHTTP(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		status int
		code   string
	}{
		{http.ErrNotMultipart, 415, "unsupported_media_type"},
		{http.ErrMissingBoundary, 400, "bad_request"},
		{http.ErrMissingFile, 400, "bad_request"},
		{multipart.ErrMessageTooLarge, 413, "body_too_large"},
	} {
		logger, logs := logged()
		for _, err := range []error{test.err, fmt.Errorf("upload: %w", test.err)} {
			e, headers := refused(t, (&admit.ErrorWriter{Logger: logger}).Wrap(fails(err)), newRequest("POST", "/", "x"), test.status)
			assert.Equal(t, test.code, e.Code, err)
			assert.Equal(t, map[bool]string{true: "multipart/form-data"}[test.status == 415], headers.Get("Accept"))
			mapped := &admit.ErrorWriter{Map: func(error) *admit.Error { return admit.NewError(409, "") }}
			refused(t, mapped.Wrap(fails(err)), get("/"), 409)
		}
		assert.Empty(t, logs.String())
	}

	upload := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		if err := admit.ParseForm(r, 1000); err != nil {
			return err
		}
		_, _, err := r.FormFile("f")
		return err
	})
	reads := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := r.MultipartReader()
		return err
	})
	for name, test := range map[string]struct {
		h      http.Handler
		r      *http.Request
		status int
	}{
		"a file":                  {upload, newRequest("POST", "/", multipartOf("f:x=1"), "Content-Type", formOfB), 200},
		"no file":                 {upload, newRequest("POST", "/", multipartOf("f=1"), "Content-Type", formOfB), 400},
		"no body":                 {upload, newRequest("POST", "/", "", "Content-Type", formOfB), 400},
		"GET":                     {upload, newRequest("GET", "/", multipartOf("f:x=1"), "Content-Type", formOfB), 400},
		"a file from urlencoded":  {upload, newRequest("POST", "/", "f=1", "Content-Type", urlencoded), 415},
		"MultipartReader":         {reads, newRequest("POST", "/", "{}", "Content-Type", jsonType), 415},
		"MultipartReader, no sep": {reads, newRequest("POST", "/", "{}", "Content-Type", "multipart/form-data"), 400},
	} {
		assert.Equal(t, test.status, status(test.h, test.r), name)
	}
}

// ParseForm takes what net/http takes, and finds the same in it.
func FuzzParseForm(f *testing.F) {
	for _, body := range []string{"a=1&b=2", "a=%zz", "a;b", "&&", "%", "a=1&a=%41"} {
		f.Add("POST", "a=q", urlencoded, body)
	}
	for _, body := range []string{
		multipartOf("a=1", "f:x=content"), "--b--", "--b\r\n\r\n--b--", "--b\r\nContent-Disposition: form-data; name=a\r\n", "--b\n\n1\n--b--\n",
		"--b\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: form-data; name=a\r\n\r\n=4\r\n--b--", multipartOf(":=") + "x", "",
	} {
		f.Add("PUT", "", formOfB, body)
	}
	for _, contentType := range []string{"", "text/plain", "multipart/form-data", `multipart/form-data; boundary="b c"`, urlencoded + ";charset=latin1", "multipart/mixed; boundary=b"} {
		f.Add("DELETE", "a=%", contentType, "a=1")
	}
	f.Fuzz(func(t *testing.T, method, query, contentType, body string) {
		request := func() *http.Request {
			r := newRequest("POST", "/", body)
			r.Method, r.URL.RawQuery = method, query
			if contentType != "" {
				r.Header.Set("Content-Type", contentType)
			}
			return r
		}
		ours, theirs := request(), request()
		err := admit.ParseForm(ours, 4)
		if err != nil {
			var e *admit.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, []int{400, 413, 415}, e.Status)
			require.Equal(t, url.Values{}, ours.Form)
			require.Error(t, admit.ParseForm(ours, 4))
			return
		}
		defer func() {
			if form := ours.MultipartForm; form != nil {
				_ = form.RemoveAll()
			}
		}()
		if method != "POST" && method != "PUT" && method != "PATCH" || body == "" {
			return
		}
		err = theirs.ParseMultipartForm(4)
		if theirs.MultipartForm == nil {
			require.ErrorIs(t, err, http.ErrNotMultipart)
		} else {
			require.NoError(t, err)
			defer func() { _ = theirs.MultipartForm.RemoveAll() }()
		}
		want, err := formText(theirs)
		require.NoError(t, err)
		got, err := formText(ours)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// Files of a form go, however the request ends.
func TestParseFormLeavesNoFileWhenTheConnectionIsCut(t *testing.T) {
	t.Parallel()
	began := func(w http.ResponseWriter) {
		assert.NoError(t, http.NewResponseController(w).Flush())
	}
	policy := admit.Policy{Errors: &admit.ErrorWriter{Logger: discardLogs}, MaxBody: 1 << 20}
	timed := policy
	timed.Timeout = time.Minute
	for policyName, p := range map[string]admit.Policy{"alone": policy, "with a Timeout": timed} {
		for name, end := range map[string]func(http.ResponseWriter, *http.Request) error{
			"an abort":           func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) },
			"begun, then error":  func(w http.ResponseWriter, _ *http.Request) error { began(w); return io.EOF },
			"begun, then panics": func(w http.ResponseWriter, _ *http.Request) error { began(w); panic("x") },
			"the client leaves":  func(_ http.ResponseWriter, r *http.Request) error { <-r.Context().Done(); return r.Context().Err() },
			"a hijack": func(w http.ResponseWriter, _ *http.Request) error {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					err = conn.Close()
				}
				return err
			},
		} {
			t.Run(name+" "+policyName, func(t *testing.T) {
				t.Parallel()
				files := make(chan string, 1)
				s := serve(t, "HTTP/1.1", p.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
					if err := admit.ParseForm(r, 10); err != nil {
						return err
					}
					f, _, err := r.FormFile("f")
					if err != nil {
						return err
					}
					files <- f.(*os.File).Name()
					_ = f.Close()
					return end(w, r)
				})))
				c := dial(t, s)
				body := multipartOf("f:x=" + strings.Repeat("x", 1000))
				_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", formOfB, len(body), body)
				require.NoError(t, err)
				file := <-files
				t.Cleanup(func() { _ = os.Remove(file) })
				if name == "the client leaves" {
					require.NoError(t, c.Close())
				}
				assert.Eventually(t, func() bool { _, err := os.Stat(file); return os.IsNotExist(err) }, 2*time.Second, 5*time.Millisecond)
			})
		}
	}
}

// To call ParseForm again is harmless.
func TestParseFormAgainIsHarmless(t *testing.T) {
	t.Parallel()
	t.Run("with less memory", func(t *testing.T) {
		t.Parallel()
		r := newRequest("POST", "/", "a="+strings.Repeat("x", 2<<20), "Content-Type", urlencoded)
		require.NoError(t, admit.ParseForm(r, 4<<20))
		assert.NoError(t, admit.ParseForm(r, 0))
	})
	t.Run("after Close", func(t *testing.T) {
		t.Parallel()
		s := serve(t, "HTTP/1.1", admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			if err := admit.ParseForm(r, 0); err != nil {
				return err
			}
			if err := r.Body.Close(); err != nil {
				return err
			}
			return admit.ParseForm(r, 0)
		}))
		res, body := do(t, s, "POST", "/", "a=1", "Content-Type", urlencoded)
		assert.Equal(t, 200, res.StatusCode, "%s", body)
	})
	for name, parse := range map[string]func(*http.Request) error{
		"net/http": (*http.Request).ParseForm,
		"ours":     func(r *http.Request) error { return admit.ParseForm(r, 0) },
	} {
		t.Run("of a body that was put back, "+name, func(t *testing.T) {
			t.Parallel()
			r := newRequest("POST", "/", "a=1", "Content-Type", urlencoded)
			require.NoError(t, parse(r))
			r.Body = io.NopCloser(bytes.NewReader([]byte("a=1"))) // as a wrapper does that checks a signature
			assert.NoError(t, admit.ParseForm(r, 0))
		})
	}
}

// After an error the form is empty, also for the methods of net/http, which many wrappers
// and handlers call without looking at the error.
func TestEmptyFormAfterAnError(t *testing.T) {
	t.Parallel()
	r := newRequest("POST", "/", "a="+strings.Repeat("x", 1<<20)+"&admin=1", "Content-Type", urlencoded)
	r.ContentLength = -1
	require.Error(t, admit.ParseForm(r, 0))
	assert.Empty(t, r.FormValue("admin"), "from what is left of the body")

	r = newRequest("POST", "/?a=q", "{}", "Content-Type", jsonType)
	require.NoError(t, r.ParseForm())
	require.Error(t, admit.ParseForm(r, 0))
	assert.Empty(t, r.Form, "which net/http has parsed before")
}

// What a handler puts into the form of a request that has none is not for other requests.
// It changes what all requests share today, so it is not parallel.
func TestFailedFormIsNotShared(t *testing.T) {
	failed := func() *http.Request {
		r := newRequest("POST", "/", "a=%zz", "Content-Type", urlencoded)
		require.Error(t, admit.ParseForm(r, 0))
		return r
	}
	first := failed()
	if form := first.MultipartForm; form != nil {
		form.Value = map[string][]string{"secret": {"of the first"}}
		defer func() { form.Value = nil }()
	}
	if form := failed().MultipartForm; form != nil {
		assert.Empty(t, form.Value)
	}
}
