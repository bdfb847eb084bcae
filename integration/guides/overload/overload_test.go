package overload_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/guides/overload"
	"github.com/admit-go/admit/integration/internal/guide"
)

var callers = admit.KeyMap{
	admit.DigestOf("free"): {ID: "k-1", Plan: "free"},
	admit.DigestOf("pro"):  {ID: "k-2", Plan: "pro"},
}

func nothing(http.ResponseWriter, *http.Request) {}

func service(t testing.TB, report, order http.HandlerFunc) (http.Handler, overload.Bounds) {
	t.Helper()
	auth, err := admit.NewAuth(admit.AuthConfig{Store: callers})
	require.NoError(t, err)
	bounds, err := overload.NewBounds()
	require.NoError(t, err)
	return overload.Service(bounds, auth, report, order), bounds
}

func get(ctx context.Context, h http.Handler, path, key string) *http.Response {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	r.Header.Set("X-Request-Id", "7f3a")
	r.Header.Set("X-API-Key", key)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// With all places taken, requests wait. The plan that is worth more goes first, and who waits
// for too long is rejected.
func TestShedder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		done := make(chan struct{})
		h, bounds := service(t, func(_ http.ResponseWriter, r *http.Request) {
			key, _ := admit.KeyFrom(r.Context())
			mu.Lock()
			order = append(order, key.Plan)
			mu.Unlock()
			<-done
		}, nothing)
		var all sync.WaitGroup
		statuses := make(chan int, 100)
		send := func(key string) {
			all.Go(func() { statuses <- get(t.Context(), h, "/reports", key).StatusCode })
			synctest.Wait()
		}
		for range 64 {
			send("free")
		}
		assert.Equal(t, 64, bounds.Shedder.Stats().Running)
		send("free")
		send("pro")
		done <- struct{}{}
		synctest.Wait()
		assert.Equal(t, "pro", order[64])

		time.Sleep(200 * time.Millisecond)
		assert.Equal(t, 200, <-statuses)
		assert.Equal(t, 429, <-statuses) // the other
		shown := regexp.MustCompile(`(Retry-After: |"retry_after":)\d+`)
		assert.Contains(t, anonymous(shown, guide.Blocks(t, "overload", "http")), anonymous(shown, []string{guide.Dump(t, get(t.Context(), h, "/reports", "free"))})[0])
		assert.Equal(t, 200, get(t.Context(), h, "/healthz", "").StatusCode)
		close(done)
		all.Wait()
		assert.Zero(t, bounds.Shedder.Stats().Running)
	})
}

func anonymous(number *regexp.Regexp, texts []string) []string {
	for i := range texts {
		texts[i] = number.ReplaceAllString(texts[i], "${1}N")
	}
	return texts
}

// Streams keep their places in the InFlight, and none in the Shedder.
func TestStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, bounds := service(t, nothing, nothing)
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 2000 {
			all.Go(func() { get(ctx, h, "/news", "free") })
			synctest.Wait()
		}
		assert.Equal(t, 2000, bounds.InFlight.Stats().Running)
		assert.Zero(t, bounds.Shedder.Stats().Running)
		res := get(t.Context(), h, "/news", "pro")
		assert.Equal(t, 429, res.StatusCode)
		assert.Equal(t, "1", res.Header.Get("Retry-After"))
		assert.Equal(t, 200, get(t.Context(), h, "/healthz", "").StatusCode)
		stop()
		all.Wait()
	})
}

// pipes is a listener whose connections are in memory, so that a bubble has their time.
type pipes struct{ accept chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, open := <-p.accept
	if !open {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) Close() error { // once, see http.Server.Serve
	close(p.accept)
	return nil
}

// Each row of the table of timeouts that is not a setting of its own kind elsewhere.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	report := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "big" {
			_, err := w.Write(make([]byte, 1<<20))
			assert.Error(t, err)
			return
		}
		<-r.Context().Done()
		assert.ErrorIs(t, r.Context().Err(), context.DeadlineExceeded)
	}
	order := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if _, err := io.ReadAll(r.Body); err != nil {
			return err
		}
		return nil
	})
	for name, test := range map[string]struct {
		sends string
		after time.Duration
		gets  string // the start of the response; empty: the connection is closed
		code  string
	}{
		"a header":        {"GET /reports HTTP/1.1\r\nHost: x\r\n", 5 * time.Second, "", ""},
		"a body":          {"POST /orders HTTP/1.1\r\nHost: x\r\nX-API-Key: free\r\nContent-Length: 10\r\n\r\n12345", 5 * time.Second, "HTTP/1.1 408 ", "request_timeout"},
		"a handler":       {"GET /reports HTTP/1.1\r\nHost: x\r\nX-API-Key: free\r\n\r\n", 10 * time.Second, "HTTP/1.1 503 ", "handler_timeout"},
		"an unread body":  {"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", time.Minute, "HTTP/1.1 200 ", "ok"},
		"an idle one":     {"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 0, "HTTP/1.1 200 ", "ok"},
		"one without any": {"", 5 * time.Second, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h, _ := service(t, report, order.ServeHTTP)
				client, stop := serve(t, h)
				defer stop()
				began := time.Now()
				_, err := io.WriteString(client, test.sends)
				require.NoError(t, err)
				in := bufio.NewReader(client)
				line, err := in.ReadString('\n')
				assert.Equal(t, test.after, time.Since(began).Round(time.Second))
				if test.gets == "" {
					assert.ErrorIs(t, err, io.EOF)
					return
				}
				require.NoError(t, err)
				assert.True(t, strings.HasPrefix(line, test.gets), line)
				idle := time.Now()
				rest, err := io.ReadAll(in)
				require.NoError(t, err)
				assert.Contains(t, string(rest), test.code)
				if strings.Contains(string(rest), "Connection: close") {
					assert.Less(t, time.Since(idle), 2*time.Second)
				} else {
					assert.Equal(t, time.Minute, time.Since(idle).Round(time.Second)) // IdleTimeout
				}
			})
		})
	}
	t.Run("a client that does not read", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			h, bounds := service(t, report, nothing)
			client, stop := serve(t, h)
			defer stop()
			_, err := io.WriteString(client, "GET /reports?big HTTP/1.1\r\nHost: x\r\nX-API-Key: free\r\n\r\n")
			require.NoError(t, err)
			time.Sleep(9 * time.Second)
			assert.Equal(t, 1, bounds.InFlight.Stats().Running)
			time.Sleep(2 * time.Second)
			assert.Zero(t, bounds.InFlight.Stats().Running)
			_, err = io.ReadAll(client)
			assert.True(t, err == nil || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
		})
	})
}

// A client that stalls is the client's fault also where Timeout is shorter than Grace, if BodyTimeout
// has a Max. Without one, the time that the handler waits for the body counts for its Timeout.
func TestTimeoutBelowGrace(t *testing.T) {
	t.Parallel()
	order := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := io.ReadAll(r.Body)
		return err
	})
	for name, test := range map[string]struct {
		body  admit.BodyTimeout
		after time.Duration
		gets  string
	}{
		"with Max":    {admit.BodyTimeout{Grace: 5 * time.Second, Max: 30 * time.Second, MinRate: 1 << 10}, 5 * time.Second, "408 Request Timeout"},
		"without Max": {admit.BodyTimeout{Grace: 5 * time.Second}, 2 * time.Second, "503 Service Unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				quiet := &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)}
				route := admit.Policy{Timeout: 2 * time.Second}.Wrap(order)
				client, stop := serve(t, admit.Policy{Errors: quiet, BodyTimeout: test.body}.Wrap(route))
				defer stop()
				began := time.Now()
				_, err := io.WriteString(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
				require.NoError(t, err)
				line, err := bufio.NewReader(client).ReadString('\n')
				require.NoError(t, err)
				assert.Equal(t, "HTTP/1.1 "+test.gets+"\r\n", line)
				assert.Equal(t, test.after, time.Since(began).Round(time.Second))
				require.NoError(t, client.Close())
				time.Sleep(time.Second) // for as long as the server lingers
			})
		})
	}
}

// serve starts the server of the guide, and returns a connection to it.
func serve(t testing.TB, h http.Handler) (client net.Conn, stop func()) {
	t.Helper()
	listener := pipes{make(chan net.Conn)}
	server := overload.NewServer(h)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	client, conn := net.Pipe()
	listener.accept <- conn
	return client, func() {
		_ = client.Close()
		_ = server.Close()
		<-ended
	}
}

// The names that the guide has of metrics are those that there are.
func TestMeasures(t *testing.T) {
	t.Parallel()
	bounds, err := overload.NewBounds()
	require.NoError(t, err)
	var names []string
	for _, m := range bounds.Shedder.Measures() {
		name := strings.ReplaceAll(m.Name, ".", "_")
		if m.Total {
			name += "_total"
		}
		names = append(names, name)
	}
	for _, name := range regexp.MustCompile("`(admit_[a-z_]+)`").FindAllStringSubmatch(guide.Text(t, "overload"), -1) {
		assert.Contains(t, names, name[1])
	}
}
