package main

import "math"

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

	s := newSVG(width, height, "admit and its peers, row by row")
	for decade := first; decade <= last; decade++ {
		at := math.Pow(10, decade)
		s.line(x(at), top-8, x(at), float64(height-20), faint)
		s.text(x(at), float64(height-6), "middle", grey, quantity(at, "sec/op"))
	}
	s.dot(labels+4, 16, blue, blue)
	s.text(labels+14, 20, "start", dark, "admit")
	s.dot(labels+74, 16, orange, orange)
	s.text(labels+84, 20, "start", dark, "the fastest peer that answers rightly")
	s.dot(labels+74, 36, "#fff", grey)
	s.text(labels+84, 40, "start", dark, "a faster one that does not do the same work")
	s.text(width-10, 40, "end", dark, "peer / admit")

	y := float64(top)
	for _, r := range rows {
		if r.heading != "" {
			y += step
			s.add(`<text x="10" y="%.1f" font-weight="bold" fill="%s">%s</text>`, y-4, dark, r.heading)
		}
		s.text(labels-10, y+step-5, "end", dark, r.label())
		at := y + step - 9
		admit, best, wrong := r.of("admit").median("sec/op"), r.best(false), r.best(true)
		if wrong != nil && (best == nil || wrong.median("sec/op") < best.median("sec/op")) {
			s.dot(x(wrong.median("sec/op")), at, "#fff", grey)
		}
		if best != nil {
			s.line(x(admit), at, x(best.median("sec/op")), at, orange)
			s.dot(x(best.median("sec/op")), at, orange, orange)
			s.text(right+12, y+step-5, "start", dark, best.lib)
			s.text(width-10, y+step-5, "end", dark, r.ratio(best))
		} else {
			s.text(right+12, y+step-5, "start", grey, "no peer does it")
		}
		s.dot(x(admit), at, blue, blue)
		y += step
	}
	return s.done()
}
