package main

import (
	"log"
	"net/http"
	"time"

	"github.com/admit-go/admit"
	"github.com/justinas/alice"
)

func main() {
	// A token is shown once. What is stored is its digest.
	token, digest, _ := admit.Mint("demo")
	keys := admit.KeyMap{digest: {ID: "demo", Owner: "ACME"}}

	api := alice.New(
		admit.Methods("GET"),
		admit.APIKey(keys),
		admit.RateLimit(admit.PerSecond(2), admit.PerMinute(20)),
	)
	mux := http.NewServeMux()
	mux.Handle("/hello", api.Then(admit.HandlerFunc(hello)))

	server := &http.Server{
		Addr:              "127.0.0.1:8080",
		Handler:           alice.New(admit.RequestID, admit.Recover).Then(admit.Mux(mux)),
		ReadHeaderTimeout: 5 * time.Second,
	}
	log.Printf("curl -i http://%s/hello -H 'X-API-Key: %s'", server.Addr, token)
	log.Fatal(server.ListenAndServe())
}

func hello(w http.ResponseWriter, r *http.Request) error {
	key, _ := admit.KeyFrom(r.Context())
	return admit.Success(w, r, http.StatusOK, "Hello, "+key.Owner)
}
