package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// curve is how the cost of a library grows with one thing.
type curve struct {
	lib    string
	points []point
}

type point struct{ n, ns, bytes float64 }

// curves returns those of Growth/by=... in the order in which they ran.
func (all *results) curves() (names []string, by map[string][]*curve) {
	by = map[string][]*curve{}
	for _, l := range all.rows {
		name, of, ok := strings.Cut(strings.TrimPrefix(l.name, "Growth/by="), "/n=")
		n, err := strconv.ParseFloat(of, 64)
		if !ok || err != nil || l.theme() != "Growth" {
			continue
		}
		if by[name] == nil {
			names = append(names, name)
		}
		for _, c := range l.cells {
			i := slices.IndexFunc(by[name], func(k *curve) bool { return k.lib == c.lib })
			if i < 0 {
				i, by[name] = len(by[name]), append(by[name], &curve{lib: c.lib})
			}
			by[name][i].points = append(by[name][i].points, point{n, c.median("sec/op") * 1e9, c.median("B/op")})
		}
	}
	return names, by
}

// palette is for peers, in the order in which they come after admit, which is blue.
var palette = []string{"#0f8b8d", orange, "#2a8a4a", "#a03bb0", "#444", "#c2334d"}

// drawGrowth returns a plot for each thing that there may be more of: times above, bytes
// below. It returns nil if there is nothing to draw.
func (all *results) drawGrowth() []byte {
	names, by := all.curves()
	if len(names) == 0 {
		return nil
	}
	const panel, gap, left, top, tall, below = 140, 58, 56, 30, 150, 60
	legend := 0
	for _, curves := range by {
		legend = max(legend, len(curves))
	}
	width, height := left+len(names)*(panel+gap)-gap+20, top+2*(tall+below)+16*legend
	s := newSVG(width, height, "How the cost of a request grows")
	for i, name := range names {
		x0 := float64(left + i*(panel+gap))
		s.text(x0+panel/2, top-12, "middle", dark, "time, by "+name)
		s.text(x0+panel/2, top+tall+below-12, "middle", dark, "bytes, by "+name)
		s.panel(x0, top, panel, tall, by[name], "ns", func(p point) float64 { return p.ns })
		s.panel(x0, top+tall+below, panel, tall, by[name], "bytes", func(p point) float64 { return p.bytes })
		for j, c := range by[name] {
			y := float64(top + 2*(tall+below) - 10 + 16*j)
			s.add(`<path d="M%.1f %.1fh16" stroke="%s" stroke-width="%.1f"/>`, x0, y-4, colour(by[name], j), weight(c))
			s.text(x0+22, y, "start", dark, c.lib)
		}
	}
	return s.done()
}

func colour(curves []*curve, i int) string {
	if curves[i].lib == "admit" {
		return blue
	}
	return palette[i%len(palette)]
}

func weight(c *curve) float64 {
	if c.lib == "admit" {
		return 2.5
	}
	return 1.3
}

// panel draws curves over the logarithm of n. Times are logarithmic too; bytes may be 0.
func (s *svg) panel(x0, y0, width, height float64, curves []*curve, unit string, of func(point) float64) {
	least, most := math.Inf(1), 0.0
	first, last := math.Inf(1), 0.0
	var ns []float64
	for _, c := range curves {
		for _, p := range c.points {
			least, most = min(least, of(p)), max(most, of(p))
			first, last = min(first, p.n), max(last, p.n)
			ns = append(ns, p.n)
		}
	}
	slices.Sort(ns)
	x := func(n float64) float64 {
		if first == last {
			return x0 + width/2
		}
		return x0 + width*math.Log(n/first)/math.Log(last/first)
	}
	var y func(float64) float64
	if unit == "ns" {
		from, to := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
		y = func(v float64) float64 { return y0 + height - height*(math.Log10(v)-from)/max(to-from, 1) }
		for decade := from; decade <= to; decade++ {
			s.tick(x0, width, y(math.Pow(10, decade)), quantity(math.Pow(10, decade)/1e9, "sec/op"))
		}
	} else {
		top := roundUp(max(most, 1))
		y = func(v float64) float64 { return y0 + height - height*v/top }
		for _, part := range []float64{0, 0.5, 1} {
			s.tick(x0, width, y(top*part), size(top*part))
		}
	}
	for _, n := range slices.Compact(ns) {
		s.text(x(n), y0+height+18, "middle", grey, short(n))
	}
	for i, c := range slices.Backward(curves) { // admit is first, and so on top
		path := ""
		for j, p := range c.points {
			path += fmt.Sprintf("%c%.1f %.1f", "ML"[min(j, 1)], x(p.n), y(of(p)))
		}
		s.add(`<path fill="none" stroke="%s" stroke-width="%.1f" d="%s"/>`, colour(curves, i), weight(c), path)
	}
}

func (s *svg) tick(x0, width, y float64, label string) {
	s.line(x0, y, x0+width, y, faint)
	s.text(x0-4, y+4, "end", grey, label)
}

// roundUp returns a number that is easy to read.
func roundUp(n float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(n)))
	for _, k := range []float64{1, 2, 4, 6, 8, 10} {
		if k*unit >= n {
			return k * unit
		}
	}
	return n
}

// short is n in few characters, such as 10k.
func short(n float64) string {
	switch {
	case n >= 1e6:
		return strconv.FormatFloat(n/1e6, 'g', 3, 64) + "M"
	case n >= 1e3:
		return strconv.FormatFloat(n/1e3, 'g', 3, 64) + "k"
	}
	return strconv.FormatFloat(n, 'g', 3, 64)
}

// size is a number of bytes.
func size(n float64) string { return short(n) + " B" }
