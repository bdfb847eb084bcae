package admittest_test

import (
	"testing"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/admittest"
)

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
