package admit

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

// RequestID returns a handler that gives each request an ID: the client's X-Request-Id if it is 1
// to 128 characters of A-Z a-z 0-9 . _ -, and otherwise 32 random hexadecimal digits. The
// response has the ID in the same header, and every error has it as request_id. The request that
// next gets has it too, so that a proxy passes it on; an ID that the upstream adds to the
// response is removed. Inside another RequestID, the outer ID is kept.
func RequestID(next http.Handler) http.Handler {
	return wrap("RequestID", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		if requestIDOf(r.Context()) != "" {
			in.ServeHTTP(w, r)
			return
		}
		s, w, inner := in.fill(w, r, slotRequestID)
		defer s.leave(r, inner)
		if ids := r.Header["X-Request-Id"]; len(ids) == 1 && validRequestID(ids[0]) {
			s.requestID = ids[0]
		} else {
			s.requestID = newRequestID()
			s.sentID[0] = s.requestID
			s.header(inner)["X-Request-Id"] = s.sentID[:]
		}
		w.Header()["X-Request-Id"] = in.one(s.requestID)
		in.ServeHTTP(w, inner)
	})
}

// RequestIDFrom returns the ID from RequestID, or "" if there is none.
func RequestIDFrom(ctx context.Context) string {
	return requestIDOf(ctx)
}

func validRequestID(id string) bool {
	if len(id) < 1 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// newRequestID uses the cheap generator: an ID must be unique, not secret.
func newRequestID() string {
	var raw [16]byte
	binary.NativeEndian.PutUint64(raw[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(raw[8:], rand.Uint64())
	var text [32]byte
	hex.Encode(text[:], raw[:])
	return string(text[:])
}
