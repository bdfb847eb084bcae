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

func costs(ctx context.Context) (all []cost, err error) {
	for _, a := range []admission{without(true), maxInFlight(size{times: 1}), shedder(size{times: 1}), failsafeDefault()} {
		h, err := a.protect(ctx, workers, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		if err != nil {
			return nil, err
		}
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("X-API-Key", callers[0].token)
		c := cost{admission: a, ns: math.Inf(1)}
		for range 5 {
			b := testing.Benchmark(func(b *testing.B) {
				for b.Loop() {
					clear(w.Header())
					h.ServeHTTP(w, r)
				}
			})
			c.ns, c.allocs = min(c.ns, float64(b.T.Nanoseconds())/float64(b.N)), b.AllocsPerOp()
		}
		if w.Code != http.StatusOK {
			return nil, fmt.Errorf("%s refuses a request that is alone", a.name)
		}
		all = append(all, c)
	}
	return all, nil
}

// costTable compares them with the first, which has no admission.
func costTable(all []cost) string {
	var b strings.Builder
	b.WriteString("## A free place\n\nWhat a request costs that is alone, through Auth and an admission, and how much of that is the admission. The best of five runs; workers: 20.\n")
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
