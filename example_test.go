package admit_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"time"

	"github.com/justinas/alice"

	"github.com/admit-go/admit"
)

// show prints the response of h.
func show(h http.Handler, method, path string, headers ...string) {
	showBody(h, method, path, "", headers...)
}

func showBody(h http.Handler, method, path, body string, headers ...string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, newRequest(method, path, body, headers...))
	fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
}

// Middlewares are chained with alice. The first one is outermost.
func Example() {
	keys := admit.KeyMap{admit.DigestOf("s3cret"): {ID: "k1", Owner: "ACME"}}

	mux := http.NewServeMux()
	mux.Handle("/hello", alice.New(admit.Methods("GET"), admit.APIKey(keys)).Then(
		admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			key, _ := admit.KeyFrom(r.Context())
			return admit.Success(w, r, http.StatusOK, "Hello, "+key.Owner)
		})))
	h := alice.New(admit.Recover).Then(admit.Mux(mux))

	show(h, "GET", "/hello", "X-API-Key", "s3cret")
	show(h, "GET", "/hello", "X-API-Key", "guess")
	show(h, "POST", "/hello")
	show(h, "GET", "/nowhere")
	// Output:
	// 200 {"result":"success","data":"Hello, ACME"}
	// 401 {"result":"error","message":"The API key is not valid.","code":"key_invalid"}
	// 405 {"result":"error","message":"The resource does not support this method. It supports GET, HEAD, OPTIONS.","code":"method_not_allowed"}
	// 404 {"result":"error","message":"There is no such resource.","code":"not_found"}
}

var errNoStock = errors.New("no stock")

// Map turns the errors of a service into Errors. Each is written, logged and counted in one
// place.
func ExampleErrorWriter() {
	ew := &admit.ErrorWriter{
		Logger: slog.New(slog.DiscardHandler),
		Map: func(err error) *admit.Error {
			if errors.Is(err, errNoStock) {
				return admit.NewError(http.StatusConflict, "The article is sold out.")
			}
			return nil
		},
		Observe: func(r *http.Request, e *admit.Error) { fmt.Println("counted:", e.Status, e.Code) },
	}
	h := ew.Wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/buy" {
			return fmt.Errorf("order 7: %w", errNoStock)
		}
		return errors.New("dial tcp 10.0.0.7:5432: connection refused") // logged, not sent
	}))
	show(h, "POST", "/buy")
	show(h, "POST", "/other")
	// Output:
	// counted: 409 conflict
	// 409 {"result":"error","message":"The article is sold out.","code":"conflict"}
	// counted: 500 internal
	// 500 {"result":"error","message":"Something went wrong on our side.","code":"internal"}
}

func ExampleError_WithCause() {
	errTwoUsers := admit.NewError(http.StatusConflict, "Two users match; give the id.")
	err := errTwoUsers.WithCause(errors.New("rows 3 and 7"))
	fmt.Println(errors.Is(err, errTwoUsers))
	fmt.Println(err)
	// Output:
	// true
	// admit: 409 conflict: Two users match; give the id.: rows 3 and 7
}

func ExampleDecode() {
	type order struct {
		Pair     string `json:"pair"`
		Quantity int    `json:"quantity"`
	}
	h := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		o, err := admit.Decode[order](r)
		if err != nil {
			return err
		}
		return admit.Success(w, r, http.StatusCreated, o)
	})
	showBody(h, "POST", "/orders", `{"pair":"btc-usd","quantity":2}`)
	showBody(h, "POST", "/orders", `{"pair":"btc-usd","quantity":"2"}`)
	showBody(h, "POST", "/orders", `{"pair":`)
	// Output:
	// 201 {"result":"success","data":{"pair":"btc-usd","quantity":2}}
	// 422 {"result":"error","message":"The request body has members that are not valid.","code":"unprocessable","errors":[{"path":"quantity","code":"wrong_type","message":"must be an integer"}]}
	// 400 {"result":"error","message":"The request body is not well-formed JSON.","code":"bad_request"}
}

// The texts of http.Error, in a handler or in a library, become the envelope.
func ExampleIntercept() {
	h := admit.Intercept(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "pq: relation \"users\" does not exist", http.StatusConflict)
	}))
	show(h, "GET", "/")
	// Output:
	// 409 {"result":"error","message":"The request conflicts with the state of the resource.","code":"conflict"}
}

func ExampleMaintenance() {
	var maintenance admit.Maintenance
	h := maintenance.Wrap(http.HandlerFunc(admit.NotFound))
	maintenance.On(time.Now().Add(90 * time.Second))
	show(h, "GET", "/")
	maintenance.Off()
	show(h, "GET", "/")
	// Output:
	// 503 {"result":"error","message":"The service is down for maintenance. Try again later.","code":"maintenance","retry_after":90}
	// 404 {"result":"error","message":"There is no such resource.","code":"not_found"}
}

func ExampleClientIP() {
	behindProxy := admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix("192.0.2.0/24"))
	h := behindProxy(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return admit.Success(w, r, http.StatusOK, admit.ClientIPFrom(r))
	}))
	show(h, "GET", "/", "X-Forwarded-For", "forged, 198.51.100.7") // through 192.0.2.1
	// Output:
	// 200 {"result":"success","data":"198.51.100.7"}
}

func ExampleMint() {
	token, digest, hint := admit.Mint("acme")
	fmt.Println(len(token), strings.HasPrefix(token, "acme_"))
	fmt.Println(digest == admit.DigestOf(token))
	fmt.Println(len(hint))
	// Output:
	// 38 true
	// true
	// 12
}

// Another kind of identity, such as a verified JWT, takes the place of an API key.
func ExampleWithKey() {
	jwt := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key := &admit.Key{ID: "user-7", Scopes: []string{"orders:read"}} // from the claims
			next.ServeHTTP(w, r.WithContext(admit.WithKey(r.Context(), key)))
		})
	}
	h := alice.New(jwt, admit.RequireScopes("orders:write")).Then(http.HandlerFunc(admit.NotFound))
	show(h, "GET", "/")
	// Output:
	// 403 {"result":"error","message":"The caller does not have the scope that this request needs: orders:write.","code":"scope_required"}
}

func ExampleNewPlans() {
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free"},
		admit.Plan{Name: "pro", Includes: "free", Features: []string{"history"}, UpgradeURL: "https://example.com/pro"},
	)
	if err != nil {
		panic(err)
	}
	keys := admit.KeyMap{admit.DigestOf("t"): {ID: "k1", Plan: "free"}}
	h := alice.New(admit.APIKey(keys), plans.Features("history")).Then(http.HandlerFunc(admit.NotFound))
	show(h, "GET", "/history", "X-API-Key", "t")
	// Output:
	// 402 {"result":"error","message":"This resource is not available on your current plan.","code":"plan_required","upgrade_url":"https://example.com/pro"}
}

// An invalid configuration does not start, and all problems are reported at once.
func ExampleNewAuth_invalid() {
	_, err := admit.NewAuth(admit.AuthConfig{
		Sources:        []admit.KeySource{admit.FromHeader("X API Key")},
		MintedPrefixes: []string{"ACME"},
	})
	fmt.Println(err)
	// Output:
	// admit: AuthConfig.Store is nil; give a KeyMap, a KeyFile or a store of your own
	// admit: AuthConfig.Sources[0] has "X API Key", which is not the name of a header
	// admit: AuthConfig.MintedPrefixes[0] is "ACME"; Mint takes 1 to 32 of a-z 0-9 _
}

// Each problem has the path of its field. A service that reads its Policy from a file can tell
// where the file is wrong.
func ExampleConfigError() {
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(0)}})
	fmt.Println(err)

	// Even if nobody checks the error of NewLimiter, the Policy reports it.
	_, err = admit.Policy{Methods: []string{"GET", "post"}, Limiter: limiter}.Chain()
	for _, fault := range err.(interface{ Unwrap() []error }).Unwrap() {
		var c *admit.ConfigError
		if errors.As(fault, &c) {
			fmt.Printf("%s: %s\n", c.Field, c.Reason)
		}
	}
	// Output:
	// admit: LimiterConfig.Limits[0].Requests is 0; it needs 1 to 1000000000
	// Policy.Methods[1]: is "post"; methods are case-sensitive: write "POST"
	// Policy.Limiter.Limits[0].Requests: is 0; it needs 1 to 1000000000
}
