package admit

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// Recover returns a handler that responds with 500 when next panics, and logs the value and the
// stack. If the response has begun, Recover cuts the connection instead, so that the client does
// not take a part of the response for the whole. http.ErrAbortHandler passes through.
func Recover(next http.Handler) http.Handler {
	return wrap("Recover", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		w = track(w)
		errs := errorWriterOf(r.Context()) // not that of an ErrorWriter inside next
		returned := false
		defer func() {
			if v := recover(); v != nil || !returned { // panic(nil) with GODEBUG=panicnil=1, or runtime.Goexit
				errs.recovered(w, r, v, debug.Stack())
			}
		}()
		in.ServeHTTP(w, r)
		returned = true
	})
}

func (ew *ErrorWriter) recovered(w http.ResponseWriter, r *http.Request, v any, stack []byte) {
	if p, ok := v.(*HandlerPanic); ok {
		v, stack = p.Value, p.Stack // where the handler panicked
	}
	cause, ok := v.(error)
	if ok && errors.Is(cause, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	if !ok {
		cause = fmt.Errorf("%v", v)
	}
	if v == nil {
		v, cause = "nil", errors.New("nil, or runtime.Goexit")
	}
	level := slog.LevelError
	left := gone(r.Context(), cause)
	if left {
		level = slog.LevelDebug
	}
	ew.log(r, level, "admit: a handler panicked",
		slog.Any("panic", v), slog.String("stack", string(stack)))
	if left {
		noteFailure(r.Context(), cause, nil, false)
		abort(w)
		return
	}
	if !beginAnswer(r.Context()) {
		return // the handler was late
	}
	defer endAnswer(r.Context())
	err := errInternal.WithCause(fmt.Errorf("panic: %w", cause)).complete()
	if ew.tooLate(w, r, cause, err) {
		return
	}
	ew.send(w, r, err, err)
}

func recoverAnswers() []Answer {
	return []Answer{answer(errInternal, "The service has failed.")}
}
