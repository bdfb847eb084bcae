package main

import (
	"math"

	"github.com/admit-go/admit/integration/internal/svg"
)

// drawPeers returns a plot of all rows in which admit and a peer have times, or nil.
func (all *results) drawPeers() []byte {
	const width, labels, right, step, top = 840, 215, 590, 18, 64
	type drawn struct {
		*line
		heading string // over the first of a theme
	}
	var rows []drawn
	low, high := math.Inf(1), 0.0
	for _, t := range themes {
		heading := t.title
		for _, l := range all.theme(t.name) {
			if t.name == "Growth" || l.unit() != "sec/op" || l.of("admit") == nil || l.best(false) == nil && l.best(true) == nil {
				continue
			}
			rows, heading = append(rows, drawn{l, heading}), ""
			for _, c := range []*cell{l.of("admit"), l.best(false), l.best(true)} {
				if c != nil {
					low, high = min(low, c.median("sec/op")), max(high, c.median("sec/op"))
				}
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	height := top + 24
	for _, r := range rows {
		height += step
		if r.heading != "" {
			height += step
		}
	}
	first, last := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	x := func(seconds float64) float64 {
		return labels + (right-labels)*(math.Log10(seconds)-first)/(last-first)
	}

	s := svg.New(width, height, "admit and its peers, row by row")
	for decade := first; decade <= last; decade++ {
		at := math.Pow(10, decade)
		s.Line(x(at), top-8, x(at), float64(height-20), svg.Faint)
		s.Text(x(at), float64(height-6), svg.Middle, svg.Grey, quantity(at, "sec/op"))
	}
	s.Dot(labels+4, 16, svg.Blue, svg.Blue)
	s.Text(labels+14, 20, svg.Start, svg.Dark, "admit")
	s.Dot(labels+74, 16, svg.Orange, svg.Orange)
	s.Text(labels+84, 20, svg.Start, svg.Dark, "the fastest peer that answers rightly")
	s.Dot(labels+74, 36, svg.White, svg.Grey)
	s.Text(labels+84, 40, svg.Start, svg.Dark, "a faster one that does not do the same work")
	s.Text(width-10, 40, svg.End, svg.Dark, "peer / admit")

	y := float64(top)
	for _, r := range rows {
		if r.heading != "" {
			y += step
			s.Heading(10, y-4, r.heading)
		}
		s.Text(labels-10, y+step-5, svg.End, svg.Dark, r.label())
		at := y + step - 9
		admit, best, wrong := r.of("admit").median("sec/op"), r.best(false), r.best(true)
		if wrong != nil && (best == nil || wrong.median("sec/op") < best.median("sec/op")) {
			s.Dot(x(wrong.median("sec/op")), at, svg.White, svg.Grey)
		}
		if best != nil {
			s.Line(x(admit), at, x(best.median("sec/op")), at, svg.Orange)
			s.Dot(x(best.median("sec/op")), at, svg.Orange, svg.Orange)
			s.Text(right+12, y+step-5, svg.Start, svg.Dark, best.lib)
			s.Text(width-10, y+step-5, svg.End, svg.Dark, r.ratio(best))
		} else {
			s.Text(right+12, y+step-5, svg.Start, svg.Grey, "no peer does it")
		}
		s.Dot(x(admit), at, svg.Blue, svg.Blue)
		y += step
	}
	return s.Bytes()
}
