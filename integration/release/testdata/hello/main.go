// A service with keys, on admit alone. It prints the address that it listens on.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/admit-go/admit"
)

func main() {
	keys, err := admit.OpenKeyFile("keys.json")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /hello", admit.APIKey(keys)(admit.HandlerFunc(hello)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, admit.Mux(mux)))
}

func hello(w http.ResponseWriter, r *http.Request) error {
	key, _ := admit.KeyFrom(r.Context())
	return admit.Success(w, r, http.StatusOK, "Hello, "+key.Owner)
}
