package client_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/justinas/alice"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/client"
)

// A client that gets through a failure and a limit.
func Example() {
	attempts := 0
	chain := alice.New(admit.RequestID, admit.Recover)
	service := httptest.NewServer(chain.Then(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		switch attempts++; attempts {
		case 1:
			return &admit.Error{Status: http.StatusBadGateway}
		case 2:
			return &admit.Error{Status: http.StatusTooManyRequests, RetryAfter: time.Second}
		}
		return admit.Success(w, r, http.StatusOK, "64250.10")
	})))
	defer service.Close()

	api := &http.Client{
		Transport: &client.Transport{Patience: 5 * time.Second},
		Timeout:   10 * time.Second, // of everything
	}
	res, err := api.Get(service.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Status, "after", attempts, "attempts")
	// Output: 200 OK after 3 attempts
}

// What would take too long is for the caller to decide: it gets the refusal at once.
func Example_quota() {
	attempts := 0
	chain := alice.New(admit.RequestID, admit.RateLimit(admit.PerHour(1)))
	service := httptest.NewServer(chain.Then(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		attempts++
		return admit.Success(w, r, http.StatusOK, nil)
	})))
	defer service.Close()

	api := &http.Client{Transport: &client.Transport{}}
	for range 2 {
		res, err := api.Get(service.URL)
		if err != nil {
			log.Fatal(err)
		}
		defer res.Body.Close()
		fmt.Println(res.Status, res.Header.Get("Retry-After") != "")
	}
	fmt.Println(attempts, "let in")
	// Output:
	// 200 OK false
	// 429 Too Many Requests true
	// 1 let in
}
