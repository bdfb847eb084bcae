// Package mediatypetest is for tests. It implements package mediatype a second time, from RFC 9110
// §5.6, §8.3.1, §12.4.2 and §12.5.1, in the slowest and simplest way: split, match, collect, sort.
// It also generates headers to compare the two.
package mediatypetest

import (
	"cmp"
	"math/big"
	"regexp"
	"slices"
	"strings"
)

const (
	token  = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
	quoted = `"(?:[^"\\]|\\.)*"`
	space  = `[ \t]*`
)

var (
	typePattern   = regexp.MustCompile(`^(` + token + `)/(` + token + `)$`)
	paramPattern  = regexp.MustCompile(`(?s)^(` + token + `)` + space + `=` + space + `(` + token + `|` + quoted + `)$`)
	weightPattern = regexp.MustCompile(`^[0-9]+\.?[0-9]*$|^\.[0-9]+$`)
	letters       = regexp.MustCompile(`[A-Za-z]+`)
	escape        = regexp.MustCompile(`(?s)\\(.)`)
)

// Split splits s at each separator that is outside quoted strings.
func Split(s string, separator byte) (parts []string) {
	quoted, part := false, ""
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == separator && !quoted:
			parts, part = append(parts, part), ""
			continue
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted && i+1 < len(s):
			part += s[i : i+1]
			i++
		}
		part += s[i : i+1]
	}
	return append(parts, part)
}

func trim(s string) string { return strings.Trim(s, " \t") }

// Lower changes only ASCII letters.
func Lower(s string) string { return letters.ReplaceAllStringFunc(s, strings.ToLower) }

// Upper changes only ASCII letters.
func Upper(s string) string { return letters.ReplaceAllStringFunc(s, strings.ToUpper) }

func unquote(s string) string {
	if strings.HasPrefix(s, `"`) {
		return escape.ReplaceAllString(s[1:len(s)-1], "$1")
	}
	return s
}

type pair struct{ name, value string }

// Type is a media type in lower case, its values unquoted.
type Type struct {
	typ, subtype string
	params       []pair
}

// Parse parses a media type. It returns false where mediatype.Parse returns an error.
func Parse(s string) (t Type, ok bool) {
	t, ok = parse(s)
	return t, ok && distinct(t)
}

// HasWildcard reports whether there is a * in the type or the subtype.
func (t Type) HasWildcard() bool { return strings.Contains(t.typ+t.subtype, "*") }

// Param returns the value of the first parameter of that name, which is in lower case.
func (t Type) Param(name string) (string, bool) {
	for _, p := range t.params {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// Matches reports whether a pattern in lower case matches t.
func (t Type) Matches(pattern string) bool {
	typ, subtype, _ := strings.Cut(pattern, "/")
	begin, end, wild := strings.Cut(subtype, "*")
	return t.typ == typ && (t.subtype == subtype || wild && len(t.subtype) > len(begin+end) &&
		strings.HasPrefix(t.subtype, begin) && strings.HasSuffix(t.subtype, end))
}

// parse parses only the grammar, which is also that of a range of Accept.
func parse(s string) (t Type, ok bool) {
	parts := Split(s, ';')
	match := typePattern.FindStringSubmatch(trim(parts[0]))
	if match == nil {
		return t, false
	}
	t.typ, t.subtype = Lower(match[1]), Lower(match[2])
	for _, part := range parts[1:] {
		if part = trim(part); part == "" {
			continue
		}
		match := paramPattern.FindStringSubmatch(part)
		if match == nil {
			return t, false
		}
		t.params = append(t.params, pair{Lower(match[1]), Lower(unquote(match[2]))})
	}
	return t, true
}

// distinct checks what a media type must be beyond its grammar.
func distinct(t Type) bool {
	seen := map[string]bool{}
	for _, p := range t.params {
		if seen[p.name] || strings.Contains(p.name, "*") {
			return false
		}
		seen[p.name] = true
	}
	return len(seen) <= 16
}

type mediaRange struct {
	Type
	weight *big.Rat
}

func rangesOf(accept []string) (ranges []mediaRange) {
	for _, line := range accept {
		for _, member := range Split(line, ',') {
			// The legacy form of */*.
			if name, rest, _ := strings.Cut(member, ";"); trim(name) == "*" {
				member = "*/*;" + rest
			}
			m, ok := parse(member)
			if !ok || m.typ == "*" && m.subtype != "*" {
				continue
			}
			r := mediaRange{Type{typ: m.typ, subtype: m.subtype}, big.NewRat(1, 1)}
			weights := 0
			for _, p := range m.params {
				if p.name != "q" {
					r.params = append(r.params, p)
					continue
				}
				if weights++; weightPattern.MatchString(p.value) {
					r.weight = number(p.value)
				} else {
					ok = false
				}
			}
			if ok && weights <= 1 {
				ranges = append(ranges, r)
			}
		}
	}
	return ranges
}

// number returns at most 1, with at most nine digits after the point.
func number(s string) *big.Rat {
	whole, fraction, _ := strings.Cut(s, ".")
	n, _ := new(big.Rat).SetString("0" + whole + "." + fraction + "0")
	billionths, one := big.NewRat(1e9, 1), big.NewRat(1, 1)
	if n.Cmp(one) > 0 {
		return one
	}
	scaled := new(big.Rat).Mul(n, billionths)
	cut := new(big.Int).Quo(scaled.Num(), scaled.Denom())
	if cut.Sign() == 0 && n.Sign() > 0 {
		cut = big.NewInt(1)
	}
	return new(big.Rat).Quo(new(big.Rat).SetInt(cut), billionths)
}

// specificity returns the level of the match (3 is the type, 2 type/*, 1 */*)
// and the number of parameters that took part in it.
func specificity(r mediaRange, offer Type) (level, params int, ok bool) {
	switch {
	case r.typ == offer.typ && r.subtype == offer.subtype:
		level = 3
	case r.typ == offer.typ && r.subtype == "*":
		level = 2
	case r.typ == "*":
		level = 1
	default:
		return 0, 0, false
	}
	for _, p := range r.params {
		value, has := offer.Param(p.name)
		if !has && p.name == "charset" {
			continue
		}
		if !has || value != p.value {
			return 0, 0, false
		}
		params++
	}
	return level, params, true
}

// weightOf returns the weight of an offer, 0 if it is not acceptable.
func weightOf(ranges []mediaRange, offer Type) *big.Rat {
	type match struct {
		level, params int
		weight        *big.Rat
	}
	var matches []match
	for _, r := range ranges {
		if level, params, ok := specificity(r, offer); ok {
			matches = append(matches, match{level, params, r.weight})
		}
	}
	if len(matches) == 0 {
		return new(big.Rat)
	}
	specific := func(a, b match) int { return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.params, b.params)) }
	top := slices.MaxFunc(matches, specific)
	best := new(big.Rat)
	for _, m := range matches {
		if specific(m, top) != 0 {
			continue
		}
		if m.weight.Sign() == 0 {
			return new(big.Rat)
		}
		if m.weight.Cmp(best) > 0 {
			best = m.weight
		}
	}
	return best
}

// Negotiate returns the offer that the lines of an Accept header prefer, or false if
// they accept none. Offers that are not media types are ignored.
func Negotiate(accept []string, offers ...string) (string, bool) {
	ranges := rangesOf(accept)
	answer, best := "", new(big.Rat)
	for _, offer := range offers {
		t, ok := Parse(offer)
		if !ok || t.HasWildcard() {
			continue
		}
		if len(ranges) == 0 {
			return offer, true
		}
		if weight := weightOf(ranges, t); weight.Cmp(best) > 0 {
			answer, best = offer, weight
		}
	}
	return answer, best.Sign() > 0
}
