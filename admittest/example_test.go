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

// A test of a service that its function newService builds. In the bubble it waits for no timeout.
func ExampleNewContract() {
	testContract := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			keys := admit.KeyMap{}
			handler, api := newService(keys)
			c := admittest.NewContract(t, api, handler)
			c.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/tea", nil)) // is sold out
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

// A store of your own is tested in its package, by a function TestStore(t *testing.T). The
// clock of this one is the time package, so that a bubble of testing/synctest moves it; a
// store in a server leaves Bubble out, and sets Sleep and Now if its clock can be moved.
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
