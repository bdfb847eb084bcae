package testkit_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/testkit"
)

// fakeT is a test that may fail.
type fakeT struct {
	testing.TB
	mu       sync.Mutex
	faults   []string
	cleanups []func()
}

func (t *fakeT) Helper() {}

func (t *fakeT) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, fmt.Sprintf(format, args...))
}

func (t *fakeT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// end ends the test, and returns its faults.
func (t *fakeT) end() []string {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
	return t.faults
}

// post sends a request whose answer does not matter.
func post(s *httptest.Server) {
	res, err := s.Client().Post(s.URL+"/path", "text/plain", strings.NewReader("a body"))
	if err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}

// serveAll serves h under a guard of writers and bodies.
func serveAll(t testing.TB, wire string, h http.Handler, configure ...func(*http.Server)) *httptest.Server {
	return testkit.ServeUnguarded(t, wire, testkit.GuardAll(t, h), configure...)
}

// Each use of the writer and the body after ServeHTTP has returned fails the test, and
// does not reach the server.

func TestGuardFindsLateUse(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"Header": func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Late", "1")
			return http.ErrBodyReadAfterClose
		},
		"WriteHeader": func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(500)
			return http.ErrBodyReadAfterClose
		},
		"Write":       func(w http.ResponseWriter, _ *http.Request) error { _, err := w.Write([]byte("x")); return err },
		"WriteString": func(w http.ResponseWriter, _ *http.Request) error { _, err := io.WriteString(w, "x"); return err },
		"Flush":       func(w http.ResponseWriter, _ *http.Request) error { return http.NewResponseController(w).Flush() },
		"SetReadDeadline": func(w http.ResponseWriter, _ *http.Request) error {
			return http.NewResponseController(w).SetReadDeadline(time.Now())
		},
		"SetWriteDeadline": func(w http.ResponseWriter, _ *http.Request) error {
			return http.NewResponseController(w).SetWriteDeadline(time.Now())
		},
		"EnableFullDuplex": func(w http.ResponseWriter, _ *http.Request) error {
			return http.NewResponseController(w).EnableFullDuplex()
		},
		"Unwrap": func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.(interface{ Unwrap() http.ResponseWriter }).Unwrap().Write(nil)
			return err
		},
		"Hijack": func(w http.ResponseWriter, _ *http.Request) error {
			_, _, err := w.(http.Hijacker).Hijack()
			return err
		},
		"ReadFrom": func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
			return err
		},
		"Body.Read":  func(_ http.ResponseWriter, r *http.Request) error { _, err := r.Body.Read(make([]byte, 1)); return err },
		"Body.Close": func(_ http.ResponseWriter, r *http.Request) error { return r.Body.Close() },
	} {
		for _, wire := range testkit.Wires {
			if wire == testkit.HTTP2 && (name == "Hijack" || name == "ReadFrom") {
				continue // it has neither
			}
			t.Run(wire+" "+name, func(t *testing.T) {
				t.Parallel()
				var fake fakeT
				var w http.ResponseWriter
				var r *http.Request
				s := serveAll(&fake, wire, http.HandlerFunc(func(itsW http.ResponseWriter, itsR *http.Request) { w, r = itsW, itsR }))
				post(s)
				s.Close()
				assert.ErrorIs(t, late(w, r), http.ErrBodyReadAfterClose)
				faults := fake.end()
				require.Len(t, faults, 1)
				assert.Contains(t, faults[0], "POST /path over HTTP/")
				assert.Contains(t, faults[0], name+" is called after ServeHTTP has returned")
				assert.Contains(t, faults[0], "guard_test.go", "the stack says where")
			})
		}
	}
}

// A method that runs while ServeHTTP returns was called in time, and is a fault too. Its
// panic, of a writer that was taken away, does not end the process.
func TestGuardFindsAMethodThatOutlastsServeHTTP(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		var fake fakeT
		server := slowWriter{httptest.NewRecorder(), make(chan bool), make(chan bool), panics}
		ended := make(chan bool)
		h := testkit.GuardAll(&fake, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			go func() {
				_, _ = w.Write([]byte("x"))
				close(ended)
			}()
			<-server.writes
		}))
		h.ServeHTTP(server, httptest.NewRequest("GET", "/", nil))
		close(server.goOn)
		<-ended
		faults := fake.end()
		require.Len(t, faults, 1)
		assert.Contains(t, faults[0], "Write still ran when ServeHTTP returned")
		assert.Equal(t, panics, strings.Contains(faults[0], "panicked: taken away"))
	}
}

// slowWriter says that it writes, and goes on when it is told.
type slowWriter struct {
	http.ResponseWriter
	writes, goOn chan bool
	panics       bool
}

func (w slowWriter) Write(p []byte) (int, error) {
	w.writes <- true
	<-w.goOn
	if w.panics {
		panic("taken away")
	}
	return len(p), nil
}

func TestGuardFindsLateChangesOfTheHeader(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(http.Header){
		"set":      func(h http.Header) { h.Set("X-New", "1") },
		"add":      func(h http.Header) { h.Add("X-Old", "1") },
		"delete":   func(h http.Header) { h.Del("X-Old") },
		"in place": func(h http.Header) { h["X-Old"][0] = "other" },
	} {
		for _, wire := range testkit.Wires {
			t.Run(wire+" "+name, func(t *testing.T) {
				t.Parallel()
				var fake fakeT
				var header http.Header
				s := serveAll(&fake, wire, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					header = w.Header()
					header.Set("X-Old", "old")
				}))
				post(s)
				s.Close()
				change(header)
				faults := fake.end()
				require.Len(t, faults, 1)
				assert.Contains(t, faults[0], "the header has changed")
			})
		}
	}
}

func TestGuardFindsDeadlinesAfterAHijack(t *testing.T) {
	t.Parallel()
	var fake fakeT
	s := serveAll(&fake, testkit.HTTP1, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		conn, _, err := c.Hijack()
		if assert.NoError(t, err) {
			assert.ErrorIs(t, c.SetReadDeadline(time.Now()), http.ErrHijacked)
			assert.ErrorIs(t, c.SetWriteDeadline(time.Now()), http.ErrHijacked)
			assert.NoError(t, conn.Close())
		}
	}))
	post(s)
	faults := fake.end()
	require.Len(t, faults, 2)
	assert.Contains(t, faults[0], "SetReadDeadline is called after the connection was hijacked")
	assert.Contains(t, faults[1], "SetWriteDeadline")
}

// What a handler may do passes the guard, and no fault is found.
func TestGuardPassesRightUse(t *testing.T) {
	t.Parallel()
	for _, wire := range testkit.Wires {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			var fake fakeT
			s := serveAll(&fake, wire, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, readsFrom := w.(io.ReaderFrom)
				_, hijacks := w.(http.Hijacker)
				assert.Equal(t, wire != testkit.HTTP2, readsFrom && hijacks)
				c := http.NewResponseController(w)
				assert.NoError(t, c.EnableFullDuplex())
				assert.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
				assert.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Minute)))
				w.Header().Set("Trailer", "X-Known")
				body, err := io.ReadAll(r.Body)
				assert.NoError(t, err)
				_, err = w.Write(body)
				assert.NoError(t, err)
				assert.NoError(t, c.Flush())
				w.(http.Flusher).Flush()
				_, err = io.WriteString(w, ", a string")
				assert.NoError(t, err)
				_, err = io.Copy(w, strings.NewReader(", a copy"))
				assert.NoError(t, err)
				// It needs the server's own writer.
				_, err = http.MaxBytesReader(w.(interface{ Unwrap() http.ResponseWriter }).Unwrap(), io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
				assert.ErrorContains(t, err, "too large")
				w.Header().Set("X-Known", "1")
				w.Header().Set(http.TrailerPrefix+"X-Sudden", "2")
				assert.NoError(t, r.Body.Close())
			}), func(s *http.Server) { s.MaxHeaderBytes = 4 << 10 })
			assert.Equal(t, 4<<10, s.Config.MaxHeaderBytes)
			res, body := testkit.Do(t, s, "POST", "/", "a body")
			assert.Equal(t, "a body, a string, a copy", string(body))
			assert.Equal(t, wire == testkit.HTTP2, res.ProtoMajor == 2)
			assert.Equal(t, "1", res.Trailer.Get("X-Known"))
			assert.Equal(t, "2", res.Trailer.Get("X-Sudden"))
			res, _ = testkit.Do(t, s, "GET", "/", "")
			assert.Equal(t, 200, res.StatusCode)
			assert.Empty(t, fake.end())
		})
	}
}

// A panic passes on, and a request without a body keeps http.NoBody.
func TestGuardPassesPanicsOn(t *testing.T) {
	t.Parallel()
	var fake fakeT
	h := testkit.GuardAll(&fake, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		assert.Equal(t, http.NoBody, r.Body)
		panic("passes")
	}))
	assert.PanicsWithValue(t, "passes", func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", http.NoBody)) })
	assert.Empty(t, fake.end())
}

// The server removes the files of a form that the handler has parsed.
func TestGuardLeavesNoFiles(t *testing.T) {
	t.Parallel()
	names := make(chan string, 1)
	s := serveAll(t, testkit.HTTP1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		assert.NoError(t, r.ParseMultipartForm(1))
		f, err := r.MultipartForm.File["f"][0].Open()
		if assert.NoError(t, err) {
			names <- f.(*os.File).Name()
			assert.NoError(t, f.Close())
		}
	}))
	const form = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\ncontent\r\n--b--\r\n"
	testkit.Do(t, s, "POST", "/", form, "Content-Type", "multipart/form-data; boundary=b")
	s.Close()
	assert.NoFileExists(t, <-names)
}
