package main

import (
	"fmt"
	"time"

	"github.com/admit-go/admit/integration/internal/svg"
)

// The plot has two parts, one above the other, over the same time.
const (
	width, height       = 760, 420
	left, right         = 64, 20
	top, middle, bottom = 44, 268, 384
	gap                 = 36
)

// draw returns the plot as SVG: what was admitted and what may be, and how often Redis
// was asked.
func (r *record) draw() []byte {
	end := r.points[len(r.points)-1]
	x := func(at time.Duration) float64 {
		return left + (width-left-right)*at.Seconds()/end.at.Seconds()
	}
	most := svg.RoundUp(end.bound)
	y := func(n float64) float64 { return middle - (middle-top)*n/most }

	rates, busiest := r.callRates()
	busiest = svg.RoundUp(busiest)
	z := func(n float64) float64 { return bottom - (bottom-middle-gap)*n/busiest }

	d := svg.New(width, height, fmt.Sprintf("Requests that %d replicas admit while Redis fails", r.fleet.size))
	if r.failsAt > 0 {
		d.Box(x(r.failsAt), top, x(r.backAt)-x(r.failsAt), bottom-top, svg.PaleRed)
		d.Text((x(r.failsAt)+x(r.backAt))/2, top-6, svg.Middle, svg.Red, "no Redis")
	}
	for _, at := range []float64{0, 0.25, 0.5, 0.75, 1} {
		d.Tick(left, width-left-right, y(most*at), fmt.Sprintf("%.0f", most*at))
	}
	for _, at := range []float64{0, 1} {
		d.Tick(left, width-left-right, z(busiest*at), fmt.Sprintf("%.0f", busiest*at))
	}
	for s := time.Duration(0); s <= end.at+time.Second/2; s += 5 * time.Second {
		d.Text(x(min(s, end.at)), bottom+18, svg.Middle, svg.Grey, fmt.Sprintf("%.0f s", s.Seconds()))
	}

	d.Curve(svg.Pen{Colour: svg.Grey, Width: 1.5, Dashed: true}, len(r.points), func(i int) (float64, float64) {
		return x(r.points[i].at), y(r.points[i].bound)
	})
	d.Curve(svg.Pen{Colour: svg.Blue, Width: 2}, len(r.points), func(i int) (float64, float64) {
		return x(r.points[i].at), y(float64(r.points[i].admitted))
	})
	d.Curve(svg.Pen{Colour: svg.Green, Width: 1.5}, len(rates), func(i int) (float64, float64) {
		return x(time.Duration(i)*time.Second + time.Second/2), z(rates[i])
	})
	d.Text(left+8, top+14, svg.Start, svg.Blue, fmt.Sprintf("admitted, of %d sent", r.sent))
	d.Text(left+8, top+30, svg.Start, svg.Grey, "may be admitted (dashed)")
	d.Text(left+8, middle+gap-8, svg.Start, svg.Green, "calls to Redis in a second")
	return d.Bytes()
}

// callRates are the calls in each whole second.
func (r *record) callRates() (rates []float64, most float64) {
	before, second := int64(0), time.Second
	for _, p := range r.points {
		if p.at >= second {
			n := float64(p.calls - before)
			rates, most = append(rates, n), max(most, n)
			before, second = p.calls, second+time.Second
		}
	}
	return rates, max(most, 1)
}
