package main

import (
	"bytes"
	"fmt"
	"math"
	"time"
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
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	end := r.points[len(r.points)-1]
	x := func(at time.Duration) float64 {
		return left + (width-left-right)*at.Seconds()/end.at.Seconds()
	}
	most := roundUp(end.bound)
	y := func(n float64) float64 { return middle - (middle-top)*n/most }

	rates, busiest := r.callRates()
	busiest = roundUp(busiest)
	z := func(n float64) float64 { return bottom - (bottom-middle-gap)*n/busiest }

	line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, height)
	line(`<title>Requests that %d replicas admit while Redis fails</title>`, r.fleet.size)
	line(`<rect width="%d" height="%d" fill="#fff"/>`, width, height)
	if r.failsAt > 0 {
		line(`<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#fde2e2"/>`, x(r.failsAt), top, x(r.backAt)-x(r.failsAt), bottom-top)
		line(`<text x="%.1f" y="%d" text-anchor="middle" fill="#a33">no Redis</text>`, (x(r.failsAt)+x(r.backAt))/2, top-6)
	}
	for _, at := range []float64{0, 0.25, 0.5, 0.75, 1} {
		line(`<path d="M%d %.1fH%d" stroke="#ddd"/>`, left, y(most*at), width-right)
		line(`<text x="%d" y="%.1f" text-anchor="end" fill="#555">%.0f</text>`, left-6, y(most*at)+4, most*at)
	}
	for _, at := range []float64{0, 1} {
		line(`<path d="M%d %.1fH%d" stroke="#ddd"/>`, left, z(busiest*at), width-right)
		line(`<text x="%d" y="%.1f" text-anchor="end" fill="#555">%.0f</text>`, left-6, z(busiest*at)+4, busiest*at)
	}
	for s := time.Duration(0); s <= end.at+time.Second/2; s += 5 * time.Second {
		line(`<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%.0f s</text>`, x(min(s, end.at)), bottom+18, s.Seconds())
	}

	b.WriteString(`<path fill="none" stroke="#888" stroke-width="1.5" stroke-dasharray="5 3" d="`)
	for i, p := range r.points {
		fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(i, 1)], x(p.at), y(p.bound))
	}
	line(`"/>`)
	b.WriteString(`<path fill="none" stroke="#1664c0" stroke-width="2" d="`)
	for i, p := range r.points {
		fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(i, 1)], x(p.at), y(float64(p.admitted)))
	}
	line(`"/>`)
	b.WriteString(`<path fill="none" stroke="#2a8a4a" stroke-width="1.5" d="`)
	for i, n := range rates {
		fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(i, 1)], x(time.Duration(i)*time.Second+time.Second/2), z(n))
	}
	line(`"/>`)
	line(`<text x="%d" y="%d" fill="#1664c0">admitted, of %d sent</text>`, left+8, top+14, r.sent)
	line(`<text x="%d" y="%d" fill="#666">may be admitted (dashed)</text>`, left+8, top+30)
	line(`<text x="%d" y="%d" fill="#2a8a4a">calls to Redis in a second</text>`, left+8, middle+gap-8)
	line(`</svg>`)
	return b.Bytes()
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

// roundUp returns a number that is easy to read.
func roundUp(n float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(n)))
	for _, k := range []float64{1, 2, 4, 5, 8, 10} {
		if k*unit >= n {
			return k * unit
		}
	}
	return n
}
