package admit_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/admit-go/admit"
)

// The key file is usually written by the command admit. A service opens it once and follows
// later changes.
func ExampleOpenKeyFile() {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "keys.json")
	err = admit.WriteKeyFile(path, admit.KeyMap{admit.DigestOf("s3cret"): {ID: "k1", Owner: "ACME"}})
	if err != nil {
		panic(err)
	}

	keys, err := admit.OpenKeyFile(path)
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	h := admit.APIKey(keys)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := admit.KeyFrom(r.Context())
		fmt.Fprintln(w, "Hello,", key.Owner)
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-API-Key", "s3cret")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Print(w.Code, " ", w.Body)
	// Output:
	// 200 Hello, ACME
}
