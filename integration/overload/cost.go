package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// cost is what a request takes that finds a place free, through Auth and an admission.
type cost struct {
	admission
	ns     float64 // the best of several runs
	allocs int64
}

func costs(ctx context.Context) ([]cost, error) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-API-Key", callers[0].token)
	var all []cost
	var handlers []http.Handler
	for _, a := range []admission{without(true), maxInFlight(size{times: 1}), shedder(size{times: 1}), failsafeDefault()} {
		h, err := a.protect(ctx, workers, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		if err != nil {
			return nil, err
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusOK {
			return nil, fmt.Errorf("%s refuses a request that is alone", a.name)
		}
		all, handlers = append(all, cost{admission: a, ns: math.Inf(1)}), append(handlers, h)
	}
	for range 6 { // in turn, since machines drift
		for i, h := range handlers {
			w := httptest.NewRecorder()
			b := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					clear(w.Header())
					h.ServeHTTP(w, r)
				}
			})
			all[i].ns, all[i].allocs = min(all[i].ns, float64(b.T.Nanoseconds())/float64(b.N)), b.AllocsPerOp()
		}
	}
	return all, nil
}

// costTable compares them with the first, which has no admission.
func costTable(all []cost) string {
	var b strings.Builder
	b.WriteString("## A free place\n\nWhat a request costs that is alone, through Auth and an admission, and how much of that is the admission. The best of six runs, in turn; workers: 20.\n")
	var rows []admission
	for _, c := range all {
		rows = append(rows, c.admission)
	}
	none := all[0]
	table(&b, rows, []string{"ns", "of the admission", "allocations", "of the admission"}, func(row, column int) string {
		c := all[row]
		return [...]string{fmt.Sprintf("%.0f", c.ns), fmt.Sprintf("%.0f", c.ns-none.ns), fmt.Sprint(c.allocs), fmt.Sprint(c.allocs - none.allocs)}[column]
	})
	return b.String()
}
