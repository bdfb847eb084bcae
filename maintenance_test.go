package admit_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit"
)

func TestMaintenance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m admit.Maintenance
		h := m.Wrap(ok)
		allowed(t, h, get("/"))

		m.On(time.Now().Add(90*time.Second + time.Millisecond))
		e, header := refused(t, h, get("/"), 503)
		assert.Equal(t, "maintenance", e.Code)
		assert.EqualValues(t, 91, e.RetryAfter)
		assert.Equal(t, "91", header.Get("Retry-After"))

		time.Sleep(91 * time.Second) // as told
		allowed(t, h, get("/"))

		m.On(time.Time{})
		e, header = refused(t, h, get("/"), 503)
		assert.Equal(t, "maintenance", e.Code)
		assert.NotContains(t, header, "Retry-After")
		time.Sleep(24 * 365 * time.Hour)
		refused(t, h, get("/"), 503)
		m.Off()
		allowed(t, h, get("/"))
	})
}

func TestMaintenanceIsSwitchedWhileServing(t *testing.T) {
	t.Parallel()
	var m admit.Maintenance
	h := m.Wrap(ok)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 1000 {
			m.On(time.Time{})
			m.Off()
		}
	})
	w, r := newDiscard(), get("/")
	for range 1000 {
		h.ServeHTTP(w, r)
	}
	wg.Wait()
	allowed(t, h, get("/"))
}

func TestMaintenanceAllocations(t *testing.T) {
	h, w, r := new(admit.Maintenance).Wrap(ok), newDiscard(), get("/")
	allocs(t, 0, func() { h.ServeHTTP(w, r) })
}
