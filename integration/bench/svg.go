package main

import (
	"bytes"
	"fmt"
	"html"
)

// Colours of the plots.
const (
	blue, orange, grey, faint, dark = "#1664c0", "#d9730d", "#888", "#ddd", "#333"
)

// svg is a drawing in the making.
type svg struct{ bytes.Buffer }

func newSVG(width, height int, title string) *svg {
	s := new(svg)
	s.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, height)
	s.add(`<title>%s</title>`, html.EscapeString(title))
	s.add(`<rect width="%d" height="%d" fill="#fff"/>`, width, height)
	return s
}

func (s *svg) add(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

// text writes with an anchor of start, middle or end.
func (s *svg) text(x, y float64, anchor, colour, text string) {
	s.add(`<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`, x, y, anchor, colour, html.EscapeString(text))
}

func (s *svg) line(x1, y1, x2, y2 float64, colour string) {
	s.add(`<path d="M%.1f %.1fL%.1f %.1f" stroke="%s"/>`, x1, y1, x2, y2, colour)
}

func (s *svg) dot(x, y float64, fill, stroke string) {
	s.add(`<circle cx="%.1f" cy="%.1f" r="4" fill="%s" stroke="%s"/>`, x, y, fill, stroke)
}

func (s *svg) done() []byte {
	s.add(`</svg>`)
	return s.Bytes()
}
