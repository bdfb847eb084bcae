package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/admit-go/admit/integration/internal/svg"
)

const (
	goodputFile = "goodput.svg"
	payingFile  = "paying.svg"
)

// drawn is an admission in a plot.
type drawn struct {
	name string
	pen  svg.Pen
}

var (
	ours   = svg.Pen{Colour: svg.Blue, Width: 2.5}
	theirs = svg.Pen{Colour: svg.Orange, Width: 1.5}
	astray = svg.Pen{Colour: svg.Orange, Width: 1.5, Dashed: true}
	few    = svg.Pen{Colour: svg.Green, Width: 1.5}
	many   = svg.Pen{Colour: svg.Green, Width: 1.5, Dashed: true}
	queue  = svg.Pen{Colour: "#a03bb0", Width: 1.5}
	open   = svg.Pen{Colour: svg.Dark, Width: 1.5, Dashed: true}
)

// drawGoodput shows the first scenario, drawPaying that with the plans.
func drawGoodput(results []*result) []byte {
	return named(results, "load").plot("Answered in time, of capacity", 0, []drawn{
		{shedder(size{times: 2}).name, ours},
		{failsafeDefault().name, theirs},
		{failsafeFrom(size{times: 25}).name, astray},
		{maxInFlight(size{times: 0.2}).name, few},
		{maxInFlight(size{times: 25}).name, many},
		{inFlightQueue().name, queue},
		{without(true).name, open},
	})
}

func drawPaying(results []*result) []byte {
	return named(results, "plans").plot("Paying requests answered in time", 0, []drawn{
		{shedder(size{times: 2}).name, ours},
		{failsafeDefault().name, theirs},
		{failsafePlans().name, astray},
		{maxInFlight(size{times: 5}).name, few},
		{inFlightQueue().name, queue},
	})
}

func named(results []*result, name string) *result {
	return results[slices.IndexFunc(results, func(r *result) bool { return r.name == name })]
}

// plot draws one metric of some admissions over the logarithm of the load.
func (r *result) plot(title string, metric int, some []drawn) []byte {
	const width, height = 760, 360
	const left, right, top, bottom = 56, 500, 44, 310
	load := func(cell int) float64 { return r.cells[cell].phases[0].load }
	first, last := load(0), load(len(r.cells)-1)
	x := func(load float64) float64 { return left + (right-left)*math.Log(load/first)/math.Log(last/first) }
	y := func(percent float64) float64 { return bottom - (bottom-top)*min(percent, 100)/100 }

	d := svg.New(width, height, title)
	d.Heading(left, 22, title)
	for _, percent := range []float64{0, 25, 50, 75, 100} {
		d.Tick(left, right-left, y(percent), fmt.Sprintf("%.0f%%", percent))
	}
	labelled := 0.0
	for i, c := range r.cells {
		if at := x(load(i)); at > labelled+30 { // else it would be over the one before
			d.Text(at, bottom+18, svg.Middle, svg.Grey, c.name)
			labelled = at
		}
	}
	d.Text((left+right)/2, bottom+36, svg.Middle, svg.Grey, "load, in times of capacity")
	for i, s := range slices.Backward(some) { // the first is on top
		at := slices.IndexFunc(r.admissions, func(a admission) bool { return a.name == s.name })
		d.Curve(s.pen, len(r.cells), func(cell int) (float64, float64) { return x(load(cell)), y(r.values[at][cell][metric]) })
		below := float64(top + 8 + 20*i)
		d.Curve(s.pen, 2, func(end int) (float64, float64) { return float64(right + 24 + 22*end), below - 4 })
		d.Text(right+54, below, svg.Start, svg.Dark, s.name)
	}
	return d.Bytes()
}
