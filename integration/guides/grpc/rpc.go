// Package grpc has the code of docs/grpc.md.
package grpc

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/admit-go/admit"
)

// Unary checks the key and the limit of each call, with those of the HTTP side.
func Unary(auth *admit.Auth, limiter *admit.Limiter) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := admitCall(ctx, info.FullMethod, auth, limiter)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// Stream does so once for each stream.
func Stream(auth *admit.Auth, limiter *admit.Limiter) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := admitCall(stream.Context(), info.FullMethod, auth, limiter)
		if err != nil {
			return err
		}
		return handler(srv, withContext{stream, ctx})
	}
}

// NewServer has both.
func NewServer(auth *admit.Auth, limiter *admit.Limiter) *grpc.Server {
	return grpc.NewServer(grpc.UnaryInterceptor(Unary(auth, limiter)), grpc.StreamInterceptor(Stream(auth, limiter)))
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s withContext) Context() context.Context { return s.ctx }

// admitCall returns the context of a call that is let in, with its key, or a status error.
func admitCall(ctx context.Context, method string, auth *admit.Auth, limiter *admit.Limiter) (context.Context, error) {
	var addr string
	if p, ok := peer.FromContext(ctx); ok {
		addr = p.Addr.String()
	}
	var authorization string
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) == 1 {
		authorization = values[0]
	}
	ctx, err := admitFrom(ctx, method, authorization, addr, auth, limiter)
	if err != nil {
		return nil, toStatus(err)
	}
	return ctx, nil
}

// admitFrom returns the context of a call that is let in, with its key.
func admitFrom(ctx context.Context, method, authorization, addr string, auth *admit.Auth, limiter *admit.Limiter) (context.Context, error) {
	from, _ := netip.ParseAddrPort(addr) // no address on a Unix socket
	token, _ := strings.CutPrefix(authorization, "Bearer ")
	key, err := auth.VerifyFrom(ctx, token, from.Addr())
	if err != nil {
		return nil, err
	}
	ctx = admit.WithKey(ctx, key)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, method, nil) // what the limit counts by
	if err != nil {
		return nil, err
	}
	r.RemoteAddr = addr
	decision, err := limiter.Take(r, 1)
	if err == nil && !decision.Allowed {
		err = &admit.Error{Status: http.StatusTooManyRequests, Code: "rate_limited", Message: "The rate limit is reached.", RetryAfter: decision.RetryAfter}
	}
	return ctx, err
}

// toStatus makes a status of gRPC of an error of admit.
func toStatus(err error) error {
	var e *admit.Error
	if !errors.As(err, &e) {
		return status.FromContextError(err).Err()
	}
	code, ok := map[int]codes.Code{
		http.StatusUnauthorized:       codes.Unauthenticated,
		http.StatusForbidden:          codes.PermissionDenied,
		http.StatusTooManyRequests:    codes.ResourceExhausted,
		http.StatusServiceUnavailable: codes.Unavailable,
	}[e.Status]
	if !ok {
		code = codes.Internal
	}
	s := status.New(code, e.Message)
	if e.RetryAfter > 0 {
		if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}); err == nil {
			s = with
		}
	}
	return s.Err()
}

// OnePort serves gRPC calls by the server of gRPC and everything else by rest.
func OnePort(rpc *grpc.Server, rest http.Handler) *http.Server {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			rpc.ServeHTTP(w, r) // with the interceptors of rpc, outside of any Policy
			return
		}
		rest.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)            // over TLS
	server.Protocols.SetUnencryptedHTTP2(true) // behind a proxy that ends TLS
	return server
}

// Connect serves a procedure of Connect behind a Policy.
func Connect(auth *admit.Auth, limiter *admit.Limiter) http.Handler {
	const procedure = "/greet.v1.GreetService/Greet" // generated code has such constants
	mux := http.NewServeMux()
	mux.Handle(procedure, connect.NewUnaryHandler(procedure, greet))
	policy := admit.Policy{
		Errors:  &admit.ErrorWriter{Encode: ForConnect},
		Methods: []string{"POST"},
		Auth:    auth,
		Limiter: limiter,
		MaxBody: 64 << 10,
	}
	return policy.Wrap(admit.Mux(mux))
}

func greet(ctx context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
	key, _ := admit.KeyFrom(ctx)
	return connect.NewResponse(wrapperspb.String(r.Msg.Value + ", " + key.Owner)), nil
}

// ForConnect writes errors as clients of Connect read them.
func ForConnect(_ *http.Request, e *admit.Error) (contentType string, body []byte) {
	code, ok := map[int]connect.Code{
		http.StatusBadRequest:            connect.CodeInvalidArgument,
		http.StatusUnauthorized:          connect.CodeUnauthenticated,
		http.StatusForbidden:             connect.CodePermissionDenied,
		http.StatusNotFound:              connect.CodeUnimplemented,
		http.StatusRequestEntityTooLarge: connect.CodeResourceExhausted,
		http.StatusTooManyRequests:       connect.CodeResourceExhausted,
		http.StatusServiceUnavailable:    connect.CodeUnavailable,
	}[e.Status]
	if !ok {
		code = connect.CodeInternal
	}
	body, _ = json.Marshal(map[string]string{"code": code.String(), "message": e.Message}) // two strings cannot fail
	return "application/json", body
}

// Interceptor checks the key and the limit of each call, in all protocols of Connect.
func Interceptor(auth *admit.Auth, limiter *admit.Limiter) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			ctx, err := admitFrom(ctx, r.Spec().Procedure, r.Header().Get("Authorization"), r.Peer().Addr, auth, limiter)
			if err != nil {
				s := status.Convert(toStatus(err))
				return nil, connect.NewError(connect.Code(s.Code()), errors.New(s.Message())) // the numbers are those of gRPC
			}
			return next(ctx, r)
		}
	}
}
