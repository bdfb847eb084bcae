package contract_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
	"github.com/admit-go/admit/example/service"
	"github.com/admit-go/admit/integration/contract/answers"
)

// The example is driven from its own document: requests for each operation, right and wrong
// in every way that the document tells of, get no answer that it does not have.
func TestExampleAnswersAsItsDocument(t *testing.T) {
	t.Parallel()
	keys := admit.KeyMap{}
	var traders []string
	mint := func(prefix string, k admit.Key) string {
		token, digest, _ := admit.Mint("demo_" + prefix)
		keys[digest] = &k
		return token
	}
	for i := range 10 { // who are not all limited
		traders = append(traders, mint("trader", admit.Key{ID: fmt.Sprint("trader", i), Plan: "pro", Scopes: []string{"orders:write"}}))
	}
	others := []string{"", "nobody's", mint("free", admit.Key{ID: "free", Plan: "free"}), mint("pro", admit.Key{ID: "pro", Plan: "pro"})}
	logger := slog.New(slog.DiscardHandler)
	api, err := service.New(t.Context(), service.Config{Keys: keys, Logger: logger})
	require.NoError(t, err)
	text, err := api.Contract.OpenAPI(contract.OpenAPI31)
	require.NoError(t, err)
	document, err := answers.Read(text)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(nil)
	server.Config = service.NewServer(api, logger)
	server.Start()
	t.Cleanup(server.Close)

	const senders, each = 8, 200
	var mu sync.Mutex
	statuses, operations := map[int]int{}, map[string]int{}
	var group sync.WaitGroup
	for seed := range uint64(senders) {
		group.Go(func() {
			d := driver{Rand: rand.New(rand.NewPCG(seed, 1)), operations: document.Operations(), traders: traders, others: others}
			for range each {
				r := d.request(t.Context(), server.URL)
				operation, a, err := exchange(document, server.Client(), r)
				if err != nil {
					t.Errorf("%s %s, %v: %v\n%s", r.Method, r.URL, r.Header, err, a.Body)
				}
				mu.Lock()
				statuses[a.Status]++
				operations[operation]++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	t.Logf("answers by status: %v", statuses)
	// A check that is never made proves nothing. 408 takes longer than this test.
	assert.Subset(t, slices.Collect(maps.Keys(statuses)), []int{200, 201, 400, 401, 402, 403, 404, 405, 406, 409, 413, 415, 422, 429, 500, 501, 502, 503, 504})
	for _, operation := range document.Operations() {
		assert.Positive(t, operations[operation], operation)
	}
}

// exchange sends a request and holds its answer against the document.
func exchange(document *answers.Document, client *http.Client, r *http.Request) (operation string, a answers.Answer, _ error) {
	res, err := client.Do(r)
	if err != nil {
		return "", a, err
	}
	defer res.Body.Close()
	a = answers.Answer{Status: res.StatusCode, Header: res.Header}
	if a.Status >= 400 { // a success may be a stream
		if a.Body, err = io.ReadAll(res.Body); err != nil {
			return "", a, err
		}
	}
	operation, err = document.Check(r, a)
	return operation, a, err
}

// driver draws requests.
type driver struct {
	*rand.Rand
	operations      []string
	traders, others []string // tokens
}

func (d driver) pick(of ...string) string { return of[d.IntN(len(of))] }

func (d driver) one(in int) bool { return d.IntN(in) == 0 }

func (d driver) request(ctx context.Context, url string) *http.Request {
	method, path, _ := strings.Cut(d.pick(d.operations...), " ")
	path = strings.ReplaceAll(path, "{pair}", d.pick("btc-usd", "eth-usd", "doge-usd", "%2F"))
	switch path {
	case "/v1/slow":
		path += d.pick("", "?d=1ms", "?d=1ms", "?d=1ms", "?d=1ms", "?d=1ms", "?d=1ms", "?d=1100ms")
	case "/v1/upstream":
		path += d.pick("", "", "?as=refused", "?as=refused", "?as=refused", "?as=slow")
	}
	if d.one(20) {
		path += "/beyond"
	}
	if d.one(8) {
		method = d.pick("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "BREW")
	}
	var body io.Reader
	contentType := ""
	if method == "POST" {
		body = strings.NewReader(d.pick(
			`{"pair":"btc-usd","side":"buy","quantity":"1","client_id":"again"}`, fmt.Sprintf(`{"pair":"btc-usd","side":"buy","quantity":"1","client_id":"%d"}`, d.IntN(1e9)),
			`{"pair":"btc-usd"}`, "{", "[]", strings.Repeat(" ", 1<<17)))
		contentType = d.pick("application/json", "application/json", "application/json", "application/json", "text/plain", "/")
	}
	r, err := http.NewRequestWithContext(ctx, method, url+path, body)
	if err != nil {
		panic(err) // never
	}
	r.Close = path == "/v1/stream" // a HEAD has its whole answer, but the stream goes on
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	token := d.pick(d.traders...)
	if d.one(3) {
		token = d.pick(d.others...)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if d.one(20) {
		r.Header.Set("X-API-Key", token)
	}
	if d.one(3) {
		r.Header.Set("Accept", d.pick("application/json", "text/csv", "image/png", "application/problem+json", "*/*"))
	}
	return r
}

// The check finds what is not in the document.
func TestCheckFindsWhatIsNotInTheDocument(t *testing.T) {
	t.Parallel()
	api, err := service.New(t.Context(), service.Config{Keys: admit.KeyMap{}})
	require.NoError(t, err)
	text, err := api.Contract.OpenAPI(contract.OpenAPI31)
	require.NoError(t, err)
	document, err := answers.Read(text)
	require.NoError(t, err)
	right := func() (*http.Request, answers.Answer) {
		return httptest.NewRequest("GET", "/v1/prices/btc-usd", nil), answers.Answer{
			Status: 401,
			Header: http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"1"}, "Www-Authenticate": {"Bearer"}, "Date": {time.Now().Format(http.TimeFormat)}},
			Body:   []byte(`{"result":"error","message":"m","code":"key_missing","request_id":"1"}`),
		}
	}
	for name, spoil := range map[string]func(*http.Request, *answers.Answer){
		"another status": func(_ *http.Request, a *answers.Answer) { a.Status = 418 },
		"another code": func(_ *http.Request, a *answers.Answer) {
			a.Body = []byte(strings.Replace(string(a.Body), "key_missing", "no_key", 1))
		},
		"no code": func(_ *http.Request, a *answers.Answer) { a.Body = []byte(`{"result":"error","message":"m"}`) },
		"no error": func(_ *http.Request, a *answers.Answer) {
			a.Body = []byte(strings.Replace(string(a.Body), "error", "success", 1))
		},
		"no JSON":           func(_ *http.Request, a *answers.Answer) { a.Body = []byte("Unauthorized") },
		"another type":      func(_ *http.Request, a *answers.Answer) { a.Header.Set("Content-Type", "text/plain") },
		"another header":    func(_ *http.Request, a *answers.Answer) { a.Header.Set("X-Debug", "1") },
		"no number":         func(_ *http.Request, a *answers.Answer) { a.Status = 429; a.Header.Set("Retry-After", "soon") },
		"a path of nobody":  func(r *http.Request, _ *answers.Answer) { r.URL.Path = "/v2" },
		"of another method": func(r *http.Request, a *answers.Answer) { r.Method, a.Status = "PUT", 422 },
		"no problem":        func(_ *http.Request, a *answers.Answer) { a.Header.Set("Content-Type", "application/problem+json") },
	} {
		r, a := right()
		_, err := document.Check(r, a)
		require.NoError(t, err)
		spoil(r, &a)
		_, err = document.Check(r, a)
		assert.Error(t, err, name)
	}
	_, err = answers.Read([]byte(`{"openapi": "3.1.0"}`))
	assert.Error(t, err)
}
