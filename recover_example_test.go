package admit_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/justinas/alice"

	"github.com/admit-go/admit"
)

// A handler that panics becomes a 500 in the envelope. The ErrorWriter outside has the logger
// that gets the value and the stack.
func ExampleRecover() {
	errs := &admit.ErrorWriter{Logger: slog.New(slog.DiscardHandler)} // the logger of the service
	h := alice.New(errs.Wrap, admit.Recover).ThenFunc(func(http.ResponseWriter, *http.Request) {
		panic("an order without items")
	})

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output:
	// 500 {"result":"error","message":"Something went wrong on our side.","code":"internal"}
}
