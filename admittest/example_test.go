package admittest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
	"github.com/admit-go/admit/contract"
)

// A test of a service that newService builds. In the bubble, waiting for timeouts takes no time.
func ExampleNewContract() {
	testContract := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			keys := admit.KeyMap{}
			handler, api := newService(keys)
			c := admittest.NewContract(t, api, handler)
			c.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/tea", nil)) // gets sold_out
			c.Provoke(admittest.Credentials{Keys: keys})
			c.AllReached()
		})
	}
	_ = testContract
}

func newService(keys admit.KeyStore) (http.Handler, *contract.API) {
	auth, err := admit.NewAuth(admit.AuthConfig{Store: keys, Optional: true})
	if err != nil {
		panic(err)
	}
	outer := admit.Policy{Auth: auth}
	api, err := contract.New(contract.Info{Title: "Tea", Version: "1.0"}, outer)
	if err != nil {
		panic(err)
	}
	soldOut := &admit.Error{Status: http.StatusConflict, Code: "sold_out", Message: "It is sold out."}
	mux := http.NewServeMux()
	api.Handle(mux, "GET /tea", admit.Policy{Accept: []string{"application/json"}},
		admit.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return soldOut }), soldOut)
	return outer.Wrap(admit.Mux(mux)), api
}

// The package of a store has a function such as TestStore(t *testing.T). This store uses the
// clock of package time, so a bubble of testing/synctest can move it. For a store in a server,
// leave Bubble out, and set Sleep and Now if its clock can be moved.
func ExampleTestLimitStore() {
	testStore := func(t *testing.T) {
		admittest.TestLimitStore(t, func(t *testing.T) admit.LimitStore {
			store, err := admit.NewMemoryStore(admit.MemoryStoreConfig{})
			if err != nil {
				t.Fatal(err)
			}
			return store
		}, admittest.LimitStoreOptions{Bubble: true})
	}
	_ = testStore
}

// A quota store that uses the clock of package time.
func ExampleTestQuotaStore() {
	testStore := func(t *testing.T) {
		admittest.TestQuotaStore(t, func(*testing.T) admit.QuotaStore {
			return admit.NewMemoryQuotaStore()
		}, admittest.QuotaStoreOptions{Bubble: true})
	}
	_ = testStore
}

// Golden compares the page of a contract with a file that is checked in, and reports the first
// line that differs. ADMIT_UPDATE=1 go test writes the file.
func ExampleGolden() {
	testPage := func(t *testing.T) {
		_, api := newService(admit.KeyMap{})
		admittest.Golden(t, "CONTRACT.md", api.Markdown())
	}
	_ = testPage
}
