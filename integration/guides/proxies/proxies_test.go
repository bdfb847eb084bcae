package proxies

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/internal/guide"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/internal/testkit"
)

// The table of the page: who is in front, which header they write, and who the client is.
func TestClientIP(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		header, trusted, peer, value, want string
	}{
		"a proxy":                     {"X-Forwarded-For", "10.0.0.0/8", "10.0.0.7:99", "198.51.100.4", "198.51.100.4"},
		"what the client has sent":    {"X-Forwarded-For", "10.0.0.0/8", "10.0.0.7:99", "192.0.2.1, 198.51.100.4", "198.51.100.4"},
		"two proxies":                 {"X-Forwarded-For", "10.0.0.0/8", "10.0.0.7:99", "192.0.2.1, 198.51.100.4, 10.0.0.9", "198.51.100.4"},
		"past the proxy":              {"X-Forwarded-For", "10.0.0.0/8", "198.51.100.5:99", "192.0.2.1", "198.51.100.5"},
		"the proxy is not trusted":    {"X-Forwarded-For", "10.0.0.0/8", "172.16.0.1:99", "198.51.100.4", "172.16.0.1"},
		"trusted proxies alone":       {"X-Forwarded-For", "10.0.0.0/8", "10.0.0.7:99", "10.0.0.2, 10.0.0.9", "10.0.0.2"},
		"a single address":            {"X-Real-IP", "127.0.0.1/32", "127.0.0.1:99", "198.51.100.4", "198.51.100.4"},
		"Cloudflare":                  {"CF-Connecting-IP", "173.245.48.0/20", "173.245.48.9:99", "2001:db8::7", "2001:db8::7"},
		"RFC 7239":                    {"Forwarded", "10.0.0.0/8", "10.0.0.7:99", `for="[2001:db8::7]:4711";proto=https`, "2001:db8::7"},
		"a Unix socket":               {"X-Forwarded-For", "127.0.0.1/32", "@", "198.51.100.4", "198.51.100.4"},
		"nothing where a proxy wrote": {"X-Forwarded-For", "10.0.0.0/8", "10.0.0.7:99", "unknown", "10.0.0.7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got netip.Addr
			h := admit.ClientIP(test.header, netip.MustParsePrefix(test.trusted))(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = admit.ClientIPFrom(r)
			}))
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = test.peer
			r.Header.Set(test.header, test.value)
			h.ServeHTTP(httptest.NewRecorder(), r)
			assert.Equal(t, test.want, got.String())
		})
	}
	_, err := behindProxies("10.0.0.0/8, nonsense")
	assert.ErrorContains(t, err, "nonsense")
}

// seen is what an upstream gets.
type seen struct {
	Host, Client string
	Header       http.Header
}

func show(w http.ResponseWriter, r *http.Request) error {
	return admit.Success(w, r, http.StatusOK, seen{r.Host, admit.ClientIPFrom(r).String(), r.Header})
}

func decode(t *testing.T, body []byte) seen {
	t.Helper()
	var answer struct{ Data seen }
	require.NoError(t, json.Unmarshal(body, &answer), "%s", body)
	return answer.Data
}

// The configuration of the page, in nginx.
func TestNginx(t *testing.T) {
	t.Parallel()
	clientIP, err := behindProxies("127.0.0.1/32")
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("GET /", admit.HandlerFunc(show))
	upload := admit.Policy{MaxBody: 1 << 20, BodyTimeout: admit.BodyTimeout{Grace: 200 * time.Millisecond, Max: time.Minute}}
	mux.Handle("PUT /file", upload.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		size, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return err
		}
		return admit.Success(w, r, http.StatusCreated, size)
	})))
	mux.HandleFunc("GET /slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	next := make(chan bool)
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", r.Header.Get("X-Request-Id")+" "+r.Header.Get("X-Forwarded-Proto")+" "+admit.ClientIPFrom(r).String())
		w.Header().Set("Content-Type", "text/event-stream")
		for range 2 {
			_, _ = fmt.Fprint(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	mux.HandleFunc("GET /socket", func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			_ = c.Write(r.Context(), websocket.MessageText, []byte("hello"))
			_ = c.Close(websocket.StatusNormalClosure, "")
		}
	})
	service := newServer(clientIP, mux)
	s := testkit.ServeUnguarded(t, testkit.HTTP1, service.Handler, func(s *http.Server) { s.IdleTimeout = service.IdleTimeout })

	config := guide.Blocks(t, "proxies", "nginx")[0]
	config = strings.NewReplacer("listen 80", "listen 127.0.0.1:PORT", "proxy_read_timeout 60s", "proxy_read_timeout 2s", "127.0.0.1:8080", strings.TrimPrefix(s.URL, "http://")).Replace(config)
	front := servers.StartNginx(t, config)
	send := func(method, path string, body io.Reader, headers ...string) (*http.Response, []byte) {
		r, err := http.NewRequestWithContext(t.Context(), method, front+path, body)
		require.NoError(t, err)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res, text
	}

	res, body := send("GET", "/", nil, "X-Request-Id", "of-the-client", "X-Forwarded-Proto", "gopher")
	got := decode(t, body)
	assert.Equal(t, "127.0.0.1", got.Client)
	assert.Equal(t, "http", got.Header.Get("X-Forwarded-Proto"))
	assert.Regexp(t, "^[0-9a-f]{32}$", res.Header.Get("X-Request-Id"))
	_, body = send("GET", "/", nil, "X-Forwarded-For", "192.0.2.1, 198.51.100.4")
	assert.Equal(t, "198.51.100.4", decode(t, body).Client, "the test is at a trusted address, as another proxy would be")

	res, body = send("PUT", "/file", strings.NewReader(strings.Repeat("x", 64<<10)))
	assert.Equal(t, 201, res.StatusCode, "%s", body)
	res, body = send("PUT", "/file", io.LimitReader(endless{}, 8<<20))
	assert.Equal(t, 413, res.StatusCode)
	assert.Contains(t, string(body), `"code":"body_too_large"`)
	stalled, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	res, body = send("PUT", "/file", stalled)
	assert.Equal(t, 408, res.StatusCode, "%s", body)

	res, body = raw(t, front, "PUT /file HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000000\r\n\r\n")
	problem(t, res, body, 413, "body_too_large")
	res, body = raw(t, front, "nonsense\r\n\r\n")
	assert.Equal(t, 400, res.StatusCode)
	assert.Contains(t, string(body), "<html>")
	res, body = raw(t, front, "PUT /file HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	assert.Equal(t, 100, res.StatusCode, "%s", body)

	res, body = send("GET", "/slow", nil)
	problem(t, res, body, 504, "gateway_timeout")

	events, err := http.Get(front + "/events")
	require.NoError(t, err)
	defer events.Body.Close()
	assert.Regexp(t, "^[0-9a-f]{32} http 127.0.0.1$", events.Header.Get("X-Seen"))
	lines := bufio.NewReader(events.Body)
	for range 2 { // each before the next is written
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "data: x\n", line)
		_, err = lines.ReadString('\n')
		require.NoError(t, err)
		next <- true
	}
	c, _, err := websocket.Dial(t.Context(), front+"/socket", nil)
	require.NoError(t, err)
	defer c.CloseNow()
	_, text, err := c.Read(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "hello", string(text))

	s.Close()
	res, body = send("GET", "/", nil)
	problem(t, res, body, 502, "bad_gateway")
	for status, code := range map[int]string{413: "body_too_large", 502: "bad_gateway", 503: "unavailable", 504: "gateway_timeout"} {
		assert.Equal(t, code, admit.NewError(status, "").Code)
		assert.Regexp(t, fmt.Sprintf(`\t%d '"message":"[A-Z][^"]+\.","code":"%s"';`, status, code), config)
	}
}

// raw sends a request as it stands to an nginx, and returns the first response.
func raw(t *testing.T, url, request string) (*http.Response, []byte) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, request)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, body
}

// problem holds an error of nginx to the envelope.
func problem(t *testing.T, res *http.Response, body []byte, status int, code string) {
	t.Helper()
	assert.Equal(t, status, res.StatusCode)
	assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
	var got struct {
		Result, Message, Code string
		RequestID             string `json:"request_id"`
	}
	require.NoError(t, json.Unmarshal(body, &got), "%s", body)
	assert.Equal(t, "error", got.Result)
	assert.Equal(t, code, got.Code)
	assert.NotEmpty(t, got.Message)
	assert.Regexp(t, "^[0-9a-f]{32}$", got.RequestID)
	assert.Equal(t, got.RequestID, res.Header.Get("X-Request-Id"))
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestGateway(t *testing.T) {
	t.Parallel()
	upstream := testkit.Serve(t, testkit.HTTP1, admit.RequestID(admit.HandlerFunc(show)))
	to, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("s3cret"): {ID: "k1", Owner: "ACME"}}})
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(100)}})
	require.NoError(t, err)
	s := testkit.Serve(t, testkit.HTTP1, newGateway(to, auth, limiter))

	res, body := testkit.Do(t, s, "GET", "/x", "", "X-API-Key", "s3cret", "X-Account", "forged", "X-Forwarded-For", "192.0.2.1", "X-Request-Id", "r1")
	require.Equal(t, 200, res.StatusCode, "%s", body)
	got := decode(t, body)
	assert.Equal(t, strings.TrimPrefix(s.URL, "http://"), got.Host)
	assert.Equal(t, []string{"ACME"}, got.Header["X-Account"])
	assert.Equal(t, []string{"127.0.0.1"}, got.Header["X-Forwarded-For"])
	assert.Equal(t, []string{"r1"}, got.Header["X-Request-Id"])
	assert.NotContains(t, got.Header, "X-Api-Key")
	assert.Equal(t, []string{"r1"}, res.Header["X-Request-Id"])

	res, body = testkit.Do(t, s, "GET", "/x", "", "X-API-Key", "guess")
	assert.Equal(t, 401, res.StatusCode, "%s", body)
	res, body = testkit.Do(t, s, "POST", "/x", strings.Repeat("x", 10<<20+1), "X-API-Key", "s3cret")
	assert.Equal(t, 413, res.StatusCode, "%s", body)

	upstream.Close()
	guide.Run(t, "proxies", s.URL, t.TempDir(), "TOKEN=s3cret")
}
