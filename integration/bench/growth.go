package main

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/admit-go/admit/integration/internal/svg"
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
var palette = []string{"#0f8b8d", svg.Orange, svg.Green, "#a03bb0", "#444", "#c2334d"}

// drawGrowth returns a plot for each thing that there may be more of: times above, bytes
// below. It returns nil if there is nothing to draw.
func (all *results) drawGrowth() []byte {
	names, by := all.curves()
	if len(names) == 0 {
		return nil
	}
	const wide, gap, left, top, tall, below = 140, 58, 56, 30, 150, 60
	legend := 0
	for _, curves := range by {
		legend = max(legend, len(curves))
	}
	width, height := left+len(names)*(wide+gap)-gap+20, top+2*(tall+below)+16*legend
	s := svg.New(width, height, "How the cost of a request grows")
	for i, name := range names {
		x0 := float64(left + i*(wide+gap))
		s.Text(x0+wide/2, top-12, svg.Middle, svg.Dark, "time, by "+name)
		s.Text(x0+wide/2, top+tall+below-12, svg.Middle, svg.Dark, "bytes, by "+name)
		panel(s, x0, top, wide, tall, by[name], "ns", func(p point) float64 { return p.ns })
		panel(s, x0, top+tall+below, wide, tall, by[name], "bytes", func(p point) float64 { return p.bytes })
		for j, c := range by[name] {
			y := float64(top + 2*(tall+below) - 10 + 16*j)
			s.Curve(pen(by[name], j), 2, func(end int) (float64, float64) { return x0 + float64(16*end), y - 4 })
			s.Text(x0+22, y, svg.Start, svg.Dark, c.lib)
		}
	}
	return s.Bytes()
}

func pen(curves []*curve, i int) svg.Pen {
	if curves[i].lib == "admit" {
		return svg.Pen{Colour: svg.Blue, Width: 2.5}
	}
	return svg.Pen{Colour: palette[i%len(palette)], Width: 1.3}
}

// panel draws curves over the logarithm of n. Times are logarithmic too; bytes may be 0.
func panel(s *svg.Drawing, x0, y0, width, height float64, curves []*curve, unit string, of func(point) float64) {
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
			s.Tick(x0, width, y(math.Pow(10, decade)), quantity(math.Pow(10, decade)/1e9, "sec/op"))
		}
	} else {
		top := svg.RoundUp(max(most, 1))
		y = func(v float64) float64 { return y0 + height - height*v/top }
		for _, part := range []float64{0, 0.5, 1} {
			s.Tick(x0, width, y(top*part), size(top*part))
		}
	}
	for _, n := range slices.Compact(ns) {
		s.Text(x(n), y0+height+18, svg.Middle, svg.Grey, short(n))
	}
	for i, c := range slices.Backward(curves) { // admit is first, and so on top
		s.Curve(pen(curves, i), len(c.points), func(j int) (float64, float64) { return x(c.points[j].n), y(of(c.points[j])) })
	}
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
