package grpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/admit-go/admit"
	guide "github.com/admit-go/admit/integration/guides/grpc"
)

type parts struct {
	auth    *admit.Auth
	limiter *admit.Limiter
}

// newParts lets each caller come three times.
func newParts(t *testing.T) parts {
	t.Helper()
	auth, err1 := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{
		admit.DigestOf("token"): {ID: "k1", Owner: "ACME"},
		admit.DigestOf("other"): {ID: "k2", Owner: "Other"},
		admit.DigestOf("bound"): {ID: "k3", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
	}})
	limiter, err2 := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerHour(3)}})
	require.NoError(t, errors.Join(err1, err2))
	return parts{auth, limiter}
}

// service tells who calls, in the place where a health check has its service.
type service struct {
	grpc_health_v1.UnimplementedHealthServer
	seen chan string
}

func (s service) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	key, _ := admit.KeyFrom(ctx)
	s.seen <- key.Owner
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func (s service) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	key, _ := admit.KeyFrom(stream.Context())
	s.seen <- key.Owner
	return stream.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING})
}

func newServer(p parts) (*grpc.Server, service) {
	server := guide.NewServer(p.auth, p.limiter)
	s := service{seen: make(chan string, 10)}
	grpc_health_v1.RegisterHealthServer(server, s)
	return server, s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return listener
}

func newClient(t *testing.T, addr string) grpc_health_v1.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

func withToken(t *testing.T, token string) context.Context {
	t.Helper()
	if token == "" {
		return t.Context()
	}
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
}

func request() *grpc_health_v1.HealthCheckRequest { return new(grpc_health_v1.HealthCheckRequest) }

// A listener of its own for gRPC, and a limit that REST has too.
func TestTwoPorts(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	server, s := newServer(p)
	listener := listen(t)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	client := newClient(t, listener.Addr().String())

	for _, token := range []string{"", "unknown"} {
		_, err := client.Check(withToken(t, token), request())
		assert.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	}
	_, err := client.Check(withToken(t, "bound"), request())
	assert.Equal(t, codes.PermissionDenied, status.Code(err))
	_, err = client.Check(withToken(t, "token"), request())
	require.NoError(t, err)
	assert.Equal(t, "ACME", <-s.seen)
	stream, err := client.Watch(withToken(t, "token"), request())
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	assert.Equal(t, "ACME", <-s.seen)

	// The third of the hour is REST, and then neither has more.
	rest := admit.Policy{Auth: p.auth, Limiter: p.limiter}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, want := range []int{200, 429} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-API-Key", "token")
		w := httptest.NewRecorder()
		rest.ServeHTTP(w, r)
		assert.Equal(t, want, w.Code)
	}
	_, err = client.Check(withToken(t, "token"), request())
	assert.Equal(t, codes.ResourceExhausted, status.Code(err))
	details := status.Convert(err).Details()
	require.Len(t, details, 1)
	assert.InDelta(t, 1200, details[0].(*errdetails.RetryInfo).RetryDelay.AsDuration().Seconds(), 5)
	stream, err = client.Watch(withToken(t, "token"), request())
	require.NoError(t, err)
	_, err = stream.Recv()
	assert.Equal(t, codes.ResourceExhausted, status.Code(err))
	_, err = client.Check(withToken(t, "other"), request())
	assert.NoError(t, err)
}

type down struct{}

func (down) LookupKey(context.Context, admit.Digest) (*admit.Key, error) {
	return nil, errors.New("no connection")
}

func TestStoreDown(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	auth, err := admit.NewAuth(admit.AuthConfig{Store: down{}})
	require.NoError(t, err)
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer token"))
	_, err = guide.Unary(auth, p.limiter)(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/s/m"}, nil)
	assert.Equal(t, codes.Unavailable, status.Code(err))
	assert.NotContains(t, err.Error(), "no connection")
}

// One port for both, without TLS.
func TestOnePort(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	rpc, s := newServer(p)
	rest := admit.Policy{Auth: p.auth, Limiter: p.limiter}.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "rest") }))
	server, listener := guide.OnePort(rpc, rest), listen(t)
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	_, err := newClient(t, listener.Addr().String()).Check(withToken(t, "token"), request())
	require.NoError(t, err)
	assert.Equal(t, "ACME", <-s.seen)
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+listener.Addr().String(), nil)
	require.NoError(t, err)
	r.Header.Set("X-API-Key", "token")
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	assert.Equal(t, 200, res.StatusCode)
	assert.Equal(t, `"hour";r=1;t=1200`, res.Header.Get("RateLimit"))
}

// What gRPC behind a Policy looks like to a client: the status is made of that of HTTP.
func TestBehindAPolicy(t *testing.T) {
	t.Parallel()
	rpc := grpc.NewServer()
	s := service{seen: make(chan string, 10)}
	grpc_health_v1.RegisterHealthServer(rpc, s)
	p := newParts(t)
	behind := admit.Policy{Auth: p.auth, Limiter: p.limiter}.Wrap(rpc)
	server, listener := guide.OnePort(nil, nil), listen(t)
	server.Handler = behind
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	client := newClient(t, listener.Addr().String())

	_, err := client.Check(t.Context(), request())
	assert.Equal(t, codes.Unauthenticated, status.Code(err))
	for range 3 {
		_, err = client.Check(withToken(t, "token"), request())
		assert.NoError(t, err)
		assert.Equal(t, "ACME", <-s.seen)
	}
	_, err = client.Check(withToken(t, "token"), request())
	assert.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	assert.ErrorContains(t, err, "rate_limited")
}

// connectClient calls greet by one of the protocols of Connect.
func connectClient(url string, h *httptest.Server, options ...connect.ClientOption) func(ctx context.Context, token, name string) (*connect.Response[wrapperspb.StringValue], error) {
	client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](h.Client(), url+"/greet.v1.GreetService/Greet", options...)
	return func(ctx context.Context, token, name string) (*connect.Response[wrapperspb.StringValue], error) {
		r := connect.NewRequest(wrapperspb.String(name))
		if token != "" {
			r.Header().Set("Authorization", "Bearer "+token)
		}
		return client.CallUnary(ctx, r)
	}
}

func serveTLS(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestConnect(t *testing.T) {
	t.Parallel()
	for name, options := range protocols() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newParts(t)
			s := serveTLS(t, guide.Connect(p.auth, p.limiter))
			call := connectClient(s.URL, s, options...)
			_, err := call(t.Context(), "", "hello")
			assert.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err), "%v", err)
			res, err := call(t.Context(), "token", "hello")
			require.NoError(t, err)
			assert.Equal(t, "hello, ACME", res.Msg.Value)
			assert.NotEmpty(t, res.Header().Get("X-Request-Id"))
			assert.Equal(t, `"hour";r=2;t=2400`, res.Header().Get("RateLimit"))
			_, err = call(t.Context(), "token", strings.Repeat("x", 100<<10))
			assert.Error(t, err, "too large")
			_, err = call(t.Context(), "token", "hello")
			require.NoError(t, err)
			_, err = call(t.Context(), "token", "hello")
			var e *connect.Error
			require.ErrorAs(t, err, &e)
			if name == "connect" {
				assert.Equal(t, connect.CodeResourceExhausted, e.Code())
				assert.Equal(t, "The rate limit is reached. Try again later.", e.Message())
				assert.Equal(t, "1200", e.Meta().Get("Retry-After"))
			}
		})
	}
}

func protocols() map[string][]connect.ClientOption {
	return map[string][]connect.ClientOption{
		"connect": {connect.WithProtoJSON()}, "connect in protobuf": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	}
}

// By an interceptor, the codes are right in each protocol.
func TestInterceptor(t *testing.T) {
	t.Parallel()
	for name, options := range protocols() {
		p := newParts(t)
		const procedure = "/greet.v1.GreetService/Greet"
		s := serveTLS(t, connect.NewUnaryHandler(procedure, func(ctx context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			key, _ := admit.KeyFrom(ctx)
			return connect.NewResponse(wrapperspb.String(r.Msg.Value + ", " + key.Owner)), nil
		}, connect.WithInterceptors(guide.Interceptor(p.auth, p.limiter))))
		call := connectClient(s.URL, s, options...)
		_, err := call(t.Context(), "unknown", "hello")
		assert.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err), name)
		for range 3 {
			res, err := call(t.Context(), "token", "hello")
			require.NoError(t, err)
			assert.Equal(t, "hello, ACME", res.Msg.Value)
		}
		_, err = call(t.Context(), "token", "hello")
		assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), name)
		assert.ErrorContains(t, err, "The rate limit is reached.", name)
	}
}

// The table of the page: what clients make of a response.
func TestCodes(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]struct{ encoded, envelope, grpc connect.Code }{
		400: {connect.CodeInvalidArgument, connect.CodeInternal, connect.CodeInternal},
		401: {connect.CodeUnauthenticated, connect.CodeUnauthenticated, connect.CodeUnauthenticated},
		403: {connect.CodePermissionDenied, connect.CodePermissionDenied, connect.CodePermissionDenied},
		404: {connect.CodeUnimplemented, connect.CodeNotFound, connect.CodeUnimplemented},
		413: {connect.CodeResourceExhausted, connect.CodeUnknown, connect.CodeUnknown},
		429: {connect.CodeResourceExhausted, connect.CodeUnavailable, connect.CodeUnavailable},
		500: {connect.CodeInternal, connect.CodeInternal, connect.CodeUnknown},
		503: {connect.CodeUnavailable, connect.CodeUnavailable, connect.CodeUnavailable},
	} {
		fails := admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return admit.NewError(status, "") })
		encoded := serveTLS(t, admit.Policy{Errors: &admit.ErrorWriter{Encode: guide.ForConnect}}.Wrap(fails))
		envelope := serveTLS(t, admit.Policy{}.Wrap(fails))
		for name, options := range protocols() {
			_, err := connectClient(encoded.URL, encoded, options...)(t.Context(), "", "hello")
			_, err2 := connectClient(envelope.URL, envelope, options...)(t.Context(), "", "hello")
			if strings.HasPrefix(name, "connect") {
				assert.Equal(t, want.encoded, connect.CodeOf(err), "%d by %s", status, name)
				assert.Equal(t, want.envelope, connect.CodeOf(err2), "%d by %s", status, name)
			} else {
				assert.Equal(t, want.grpc, connect.CodeOf(err), "%d by %s", status, name)
				assert.Equal(t, want.grpc, connect.CodeOf(err2), "%d by %s", status, name)
			}
		}
	}
}

// Connect rejects other types itself; Intercept puts the envelope there.
func TestConnectRejectsTypes(t *testing.T) {
	t.Parallel()
	p := newParts(t)
	r := httptest.NewRequest("POST", "/greet.v1.GreetService/Greet", strings.NewReader("hello"))
	r.Header.Set("X-API-Key", "token")
	r.Header.Set("Content-Type", "text/plain")
	w := httptest.NewRecorder()
	guide.Connect(p.auth, p.limiter).ServeHTTP(w, r)
	assert.Equal(t, 415, w.Code)
	assert.Contains(t, w.Header().Get("Accept-Post"), "application/proto")
	assert.Empty(t, w.Body.String())
	w, r.Body = httptest.NewRecorder(), io.NopCloser(strings.NewReader("hello"))
	admit.Intercept(guide.Connect(p.auth, p.limiter)).ServeHTTP(w, r)
	assert.Contains(t, w.Body.String(), `"code":"unsupported_media_type"`)
}
