package mediatypetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Random generates headers and offers that often match each other, and are sometimes malformed.
type Random struct{ *rand.Rand }

// NewRandom returns a Random that generates the same for the same seed.
func NewRandom(seed uint64) Random { return Random{rand.New(rand.NewPCG(seed, 0))} }

func (r Random) pick(of ...string) string { return of[r.IntN(len(of))] }

func (r Random) maybe(percent int, s string) string {
	if r.IntN(100) < percent {
		return s
	}
	return ""
}

// spell changes the spelling of a text, but not its meaning.
func (r Random) spell(s string) string {
	if r.IntN(10) == 0 {
		return strings.ToUpper(s)
	}
	return s
}

func (r Random) mediaType() string {
	return r.pick("text", "text", "application", "a") + "/" + r.pick("html", "plain", "json", "vnd.x+json", "b")
}

func (r Random) param() string {
	name := r.pick("level", "version", "charset", "format")
	value := r.pick("1", "2", "utf-8", "flowed", `"1"`, `"utf-8"`, `"a,b;c"`, `"\1"`, `""`, `"a\"b"`)
	return r.spell(name) + "=" + r.spell(value)
}

func (r Random) offer() string {
	s := r.mediaType()
	for r.IntN(3) == 0 && !strings.Contains(s, ";") {
		s += ";" + r.param()
	}
	return s
}

// Offers generates media types, some of which may be duplicates.
func (r Random) Offers() []string {
	offers := make([]string, 1+r.IntN(5))
	for i := range offers {
		offers[i] = r.offer()
	}
	if r.IntN(50) == 0 { // more than one group
		for range 20 {
			offers = append(offers, r.offer())
		}
	}
	return offers
}

func (r Random) weight() string {
	switch r.IntN(10) {
	case 0:
		return r.pick("0", "0.", "0.0", "0.000", ".0")
	case 1:
		return r.pick("1", "1.0", "1.000", "2", "100", "1.5")
	case 2:
		return r.pick("", "-1", "-0", "x", "1e3", ".", "0.5x", "0,5", `"0.5"`, "0.1234567891", "0.00000000001", "+1")
	default:
		return fmt.Sprintf("%s.%d", r.pick("", "0"), r.IntN(10))
	}
}

func (r Random) member() string {
	if r.IntN(25) == 0 {
		return r.pick("", "*/json", "text", "/", "text/", "/html", "text /html", "text/html x", "text/html;x", `"`, `text/html;a="`,
			`"a,b"`, `text/html;a="b" c`, "text/html;a=", "text/html;=a", "te,xt/html", "*", "*;q=.2", "text/*x", `a/b;q="0.5"`, "\x80/b", `x;a="\`)
	}
	s := r.pick(r.mediaType(), r.mediaType(), r.mediaType(), r.mediaType(), "text/*", "application/*", "a/*", "*/*")
	s = r.spell(s)
	separator := r.pick(";", ";", "; ", " ;", ";;", " ; ")
	q := r.IntN(6)
	for i := range 3 {
		if i == q {
			s += separator + r.pick("q", "q", "q", "Q") + r.maybe(3, " ") + "=" + r.maybe(3, "\t") + r.weight()
		}
		if r.IntN(5) == 0 {
			s += separator + r.param()
		}
	}
	return s + r.maybe(5, ";")
}

// Accept generates the lines of an Accept header.
func (r Random) Accept() []string {
	var lines []string
	line, members := "", r.IntN(7)
	for i := range members {
		line += r.member()
		switch {
		case i == members-1:
		case r.IntN(8) == 0:
			lines, line = append(lines, line), ""
		default:
			line += r.pick(",", ", ", " ,", ",,")
		}
	}
	if line != "" || r.IntN(2) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// ContentType generates the value of a Content-Type.
func (r Random) ContentType() string {
	s := r.spell(r.pick("application", "text", "image", "a") + "/" + r.pick("json", "json", "csv", "vnd.x+json", "x+json", "+json", "png", "*", "*+json", ""))
	for range r.IntN(4) {
		s += r.pick(";", "; ", ";;", " ; ", "; ", r.pick(";", " ", ",")) + r.pick(r.param(), "v=1", "charset=utf-8", `charset="Utf-8"`, r.pick("a=b", "charset", `x="`))
	}
	return s
}
