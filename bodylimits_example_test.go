package admit_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/admit-go/admit"
)

// A body that announces its length is rejected before the handler. Without a length, the
// handler gets an error from Read, and returns it.
func ExampleMaxBody() {
	h := admit.MaxBody(10)(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		return admit.Success(w, r, http.StatusOK, len(body))
	}))
	for _, body := range []string{"short", "more than ten bytes"} {
		for _, length := range []int64{int64(len(body)), -1} { // -1: chunked
			r := httptest.NewRequest("POST", "/", strings.NewReader(body))
			r.ContentLength = length
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			fmt.Print(w.Code, " ", w.Body)
		}
	}
	// Output:
	// 200 {"result":"success","data":5}
	// 200 {"result":"success","data":5}
	// 413 {"result":"error","message":"The request body is too large.","code":"body_too_large"}
	// 413 {"result":"error","message":"The request body is too large.","code":"body_too_large"}
}
