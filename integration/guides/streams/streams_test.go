package streams

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/guide"
)

// service is the feed behind a server that is stopped when the test ends, or before.
type service struct {
	*feed
	url     string
	shedder *admit.Shedder
	stop    func() error
}

func start(t *testing.T, heartbeat time.Duration) *service {
	return startOn(t, new(http.Server), heartbeat)
}

func startOn(t *testing.T, server *http.Server, heartbeat time.Duration) *service {
	t.Helper()
	closing, stopStreams := context.WithCancel(context.Background())
	f, err := newFeed(closing, heartbeat)
	require.NoError(t, err)
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{
		admit.DigestOf("s3cret"): {ID: "k1"}, admit.DigestOf("other"): {ID: "k2"},
		admit.DigestOf("limited"): {ID: "k3", Limits: []admit.Limit{admit.PerSecond(1000)}},
	}})
	require.NoError(t, err)
	shedder, err := admit.NewShedder(admit.ShedderConfig{Max: 1})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(1000)}})
	require.NoError(t, err)
	h, err := f.handler(auth, limiter, shedder)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	server.Handler = h
	go func() { done <- serve(ctx, server, listener, f, stopStreams) }()
	s := &service{feed: f, url: "http://" + listener.Addr().String(), shedder: shedder}
	stopped := false
	s.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { assert.NoError(t, s.stop()) })
	return s
}

func (s *service) get(t *testing.T, path, token string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+path, nil)
	require.NoError(t, err)
	r.Header.Set("X-API-Key", token)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// next reads one event.
func next(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var text strings.Builder
	for !strings.HasSuffix(text.String(), "\n\n") {
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		text.WriteString(line)
	}
	return text.String()
}

// What the page shows is what a client reads.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := start(t, 20*time.Millisecond)
	res := s.get(t, "/events", "s3cret")
	assert.Equal(t, 200, res.StatusCode)
	assert.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	body := bufio.NewReader(res.Body)
	text := next(t, body)
	s.prices.publish("67000.10")
	heartbeats := 0
	for heartbeats == 0 || !strings.Contains(text, "id: 1") {
		if event := next(t, body); event != ": heartbeat\n\n" {
			text += event
		} else {
			heartbeats++
		}
	}
	assert.Equal(t, strings.TrimSpace(guide.Blocks(t, "streams", "text")[0]), strings.TrimSpace(text+": heartbeat"))
}

// Server.ReadTimeout does not end a stream.
func TestReadTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 500 * time.Millisecond
	s := startOn(t, &http.Server{ReadTimeout: timeout}, 50*time.Millisecond)
	began := time.Now()
	body := bufio.NewReader(s.get(t, "/events", "s3cret").Body)
	for time.Since(began) < 2*timeout {
		next(t, body)
	}
}

// A key has five streams, which take no place of the Shedder, and a sixth when one is over. So has a
// key with limits of its own.
func TestStreamsOfACaller(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"s3cret", "limited"} {
		t.Run(token, func(t *testing.T) {
			t.Parallel()
			testStreamsOfACaller(t, token)
		})
	}
}

func testStreamsOfACaller(t *testing.T, token string) {
	s := start(t, 20*time.Millisecond)
	var open []*http.Response
	for range 5 {
		res := s.get(t, "/events", token)
		require.Equal(t, 200, res.StatusCode)
		open = append(open, res)
	}
	assert.Zero(t, s.shedder.Stats().Running)
	res := s.get(t, "/events", token)
	assert.Equal(t, 429, res.StatusCode)
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"code":"too_many_streams"`)
	assert.Equal(t, 200, s.get(t, "/events", "other").StatusCode)
	assert.Equal(t, 401, s.get(t, "/events", "guess").StatusCode)

	require.NoError(t, open[0].Body.Close())
	require.Eventually(t, func() bool { return s.get(t, "/events", token).StatusCode == 200 }, 10*time.Second, 10*time.Millisecond)
}

func TestPoll(t *testing.T) {
	t.Parallel()
	s := start(t, time.Minute)
	answer := make(chan string)
	go func() {
		text, _ := io.ReadAll(s.get(t, "/poll", "s3cret").Body)
		answer <- string(text)
	}()
	for {
		s.prices.publish("67000.10")
		select {
		case text := <-answer:
			assert.Equal(t, `{"result":"success","data":"67000.10"}`, strings.TrimSpace(text))
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *service) dial(t *testing.T, headers http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	c, res, err := websocket.Dial(ctx, s.url+"/socket", &websocket.DialOptions{HTTPHeader: headers})
	if err == nil {
		t.Cleanup(func() { _ = c.CloseNow() })
	}
	return c, res, err
}

func TestSocket(t *testing.T) {
	t.Parallel()
	s := start(t, time.Minute)
	keyed := http.Header{"X-Api-Key": {"limited"}}
	c, _, err := s.dial(t, keyed)
	require.NoError(t, err)
	answered := 0
	for {
		if err = c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			break
		}
		var text []byte
		if _, text, err = c.Read(t.Context()); err != nil {
			break
		}
		assert.Equal(t, "hello", string(text))
		assert.Zero(t, s.shedder.Stats().Running)
		answered++
	}
	assert.Equal(t, websocket.StatusTryAgainLater, websocket.CloseStatus(err), err)
	assert.Contains(t, err.Error(), "too many messages; wait 1s")
	assert.Equal(t, 10, answered)

	for name, test := range map[string]struct {
		headers http.Header
		status  int
		code    string
	}{
		"without a key":  {nil, 401, "key_missing"},
		"another origin": {http.Header{"X-Api-Key": {"s3cret"}, "Origin": {"https://evil.example"}}, 403, "forbidden"},
		"the app":        {http.Header{"X-Api-Key": {"s3cret"}, "Origin": {"https://app.example.com"}}, 101, ""},
		"no browser":     {keyed, 101, ""},
	} {
		_, res, err := s.dial(t, test.headers)
		require.NotNil(t, res, name)
		assert.Equal(t, test.status, res.StatusCode, name)
		if err != nil {
			text, _ := io.ReadAll(res.Body)
			assert.Contains(t, string(text), `"code":"`+test.code+`"`, name)
		}
	}
	res := s.get(t, "/socket", "s3cret") // no WebSocket at all
	assert.Equal(t, 426, res.StatusCode)
	assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
}

// Shutdown ends what would go on for ever, and tells the clients.
func TestShutdown(t *testing.T) {
	t.Parallel()
	s := start(t, time.Minute)
	events := s.get(t, "/events", "s3cret")
	require.Equal(t, 200, events.StatusCode)
	c, _, err := s.dial(t, http.Header{"X-Api-Key": {"s3cret"}})
	require.NoError(t, err)
	closed := make(chan error, 1)
	go func() {
		_, _, err := c.Read(t.Context())
		closed <- err
	}()
	assert.ErrorIs(t, s.stop(), nil)
	assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(<-closed))
	text, err := io.ReadAll(events.Body)
	require.NoError(t, err, "the end of the stream, and not a connection that is cut")
	assert.Equal(t, ": welcome\n\n", string(text))
}
