// Package svg writes plots as SVG.
package svg

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// Colours of the plots.
const (
	Blue, Orange, Green      = "#1664c0", "#d9730d", "#2a8a4a"
	Red, PaleRed             = "#a33", "#fde2e2"
	Dark, Grey, Faint, White = "#333", "#888", "#ddd", "#fff"
)

// Anchors of a text: where its x is.
const (
	Start, Middle, End = "start", "middle", "end"
)

// Drawing is an SVG in the making. Coordinates are pixels from the upper left corner.
type Drawing struct{ b bytes.Buffer }

// New returns an empty drawing on white.
func New(width, height int, title string) *Drawing {
	d := new(Drawing)
	d.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, height)
	d.add(`<title>%s</title>`, html.EscapeString(title))
	d.Box(0, 0, float64(width), float64(height), White)
	return d
}

// Bytes ends the drawing and returns it.
func (d *Drawing) Bytes() []byte {
	d.add(`</svg>`)
	return d.b.Bytes()
}

func (d *Drawing) Text(x, y float64, anchor, colour, text string) {
	d.add(`<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`, x, y, anchor, colour, html.EscapeString(text))
}

// Heading is a text in bold.
func (d *Drawing) Heading(x, y float64, text string) {
	d.add(`<text x="%.1f" y="%.1f" font-weight="bold" fill="%s">%s</text>`, x, y, Dark, html.EscapeString(text))
}

func (d *Drawing) Line(x1, y1, x2, y2 float64, colour string) {
	d.add(`<path d="M%.1f %.1fL%.1f %.1f" stroke="%s"/>`, x1, y1, x2, y2, colour)
}

func (d *Drawing) Dot(x, y float64, fill, stroke string) {
	d.add(`<circle cx="%.1f" cy="%.1f" r="4" fill="%s" stroke="%s"/>`, x, y, fill, stroke)
}

func (d *Drawing) Box(x, y, width, height float64, fill string) {
	d.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, y, width, height, fill)
}

// Tick is a faint line across a plot, and what it stands for on its left.
func (d *Drawing) Tick(x, width, y float64, label string) {
	d.Line(x, y, x+width, y, Faint)
	d.Text(x-4, y+4, End, Grey, label)
}

// Pen is how a curve is drawn.
type Pen struct {
	Colour string
	Width  float64
	Dashed bool
}

// Curve goes through n points.
func (d *Drawing) Curve(p Pen, n int, at func(i int) (x, y float64)) {
	var path bytes.Buffer
	for i := range n {
		x, y := at(i)
		fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], x, y)
	}
	dashes := ""
	if p.Dashed {
		dashes = ` stroke-dasharray="5 3"`
	}
	d.add(`<path fill="none" stroke="%s" stroke-width="%.1f"%s d="%s"/>`, p.Colour, p.Width, dashes, path.Bytes())
}

func (d *Drawing) add(format string, args ...any) { fmt.Fprintf(&d.b, format+"\n", args...) }

// RoundUp returns the least number that is not below n, which is positive, and easy to
// read, as the end of an axis has to be.
func RoundUp(n float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(n)))
	for _, k := range []float64{1, 2, 4, 6, 8} {
		if k*unit >= n {
			return k * unit
		}
	}
	return 10 * unit
}
