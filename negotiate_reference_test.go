package admit_test

import (
	"cmp"
	"fmt"
	"math/big"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// What follows is the decision of Negotiate again, from RFC 9110 §5.6, §8.3.1, §12.4.2
// and §12.5.1, in the slowest and plainest way: split, match, collect, sort.

const (
	token  = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
	quoted = `"(?:[^"\\]|\\.)*"`
	space  = `[ \t]*`
)

var (
	refType    = regexp.MustCompile(`^(` + token + `)/(` + token + `)$`)
	refParam   = regexp.MustCompile(`(?s)^(` + token + `)` + space + `=` + space + `(` + token + `|` + quoted + `)$`)
	refWeight  = regexp.MustCompile(`^[0-9]+\.?[0-9]*$|^\.[0-9]+$`)
	refLetters = regexp.MustCompile(`[A-Za-z]+`)
	refEscape  = regexp.MustCompile(`(?s)\\(.)`)
)

// refSplit splits s at each separator that is outside quoted strings.
func refSplit(s string, separator byte) (parts []string) {
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

func refTrim(s string) string { return strings.Trim(s, " \t") }

// refLower and refUpper know the letters of ASCII and no others.
func refLower(s string) string { return refLetters.ReplaceAllStringFunc(s, strings.ToLower) }
func refUpper(s string) string { return refLetters.ReplaceAllStringFunc(s, strings.ToUpper) }

func refUnquote(s string) string {
	if strings.HasPrefix(s, `"`) {
		return refEscape.ReplaceAllString(s[1:len(s)-1], "$1")
	}
	return s
}

type refPair struct{ name, value string }

type refMedia struct {
	typ, subtype string
	params       []refPair // in lower case, unquoted
}

func refParse(s string) (m refMedia, ok bool) {
	parts := refSplit(s, ';')
	match := refType.FindStringSubmatch(refTrim(parts[0]))
	if match == nil {
		return m, false
	}
	m.typ, m.subtype = refLower(match[1]), refLower(match[2])
	for _, part := range parts[1:] {
		if part = refTrim(part); part == "" {
			continue
		}
		match := refParam.FindStringSubmatch(part)
		if match == nil {
			return m, false
		}
		m.params = append(m.params, refPair{refLower(match[1]), refLower(refUnquote(match[2]))})
	}
	return m, true
}

func (m refMedia) get(name string) (string, bool) {
	for _, p := range m.params {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

type refRange struct {
	refMedia
	weight *big.Rat
}

func refRanges(accept []string) (ranges []refRange) {
	for _, line := range accept {
		for _, member := range refSplit(line, ',') {
			// The legacy form of */*.
			if name, rest, _ := strings.Cut(member, ";"); refTrim(name) == "*" {
				member = "*/*;" + rest
			}
			m, ok := refParse(member)
			if !ok || m.typ == "*" && m.subtype != "*" {
				continue
			}
			r := refRange{refMedia{typ: m.typ, subtype: m.subtype}, big.NewRat(1, 1)}
			weights := 0
			for _, p := range m.params {
				if p.name != "q" {
					r.params = append(r.params, p)
					continue
				}
				if weights++; refWeight.MatchString(p.value) {
					r.weight = refNumber(p.value)
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

// refNumber has nine digits after the point at most, and is 1 at most.
func refNumber(s string) *big.Rat {
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

// refSpecificity returns the level of the match (3 is the type, 2 type/*, 1 */*)
// and the number of parameters that took part in it.
func refSpecificity(r refRange, offer refMedia) (level, params int, ok bool) {
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
		value, has := offer.get(p.name)
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

// refWeightOf returns the weight of an offer, 0 if it is not acceptable.
func refWeightOf(ranges []refRange, offer refMedia) *big.Rat {
	type match struct {
		level, params int
		weight        *big.Rat
	}
	var matches []match
	for _, r := range ranges {
		if level, params, ok := refSpecificity(r, offer); ok {
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

func refNegotiate(accept []string, offers ...string) (string, bool) {
	ranges := refRanges(accept)
	answer, best := "", new(big.Rat)
	for _, offer := range offers {
		m, ok := refParse(offer)
		if !ok || strings.Contains(m.typ+m.subtype, "*") || !refDistinct(m) {
			continue
		}
		if len(ranges) == 0 {
			return offer, true
		}
		if weight := refWeightOf(ranges, m); weight.Cmp(best) > 0 {
			answer, best = offer, weight
		}
	}
	return answer, best.Sign() > 0
}

// refDistinct is what is asked of a media type beyond its grammar.
func refDistinct(m refMedia) bool {
	seen := map[string]bool{}
	for _, p := range m.params {
		if seen[p.name] || strings.Contains(p.name, "*") {
			return false
		}
		seen[p.name] = true
	}
	return len(seen) <= 16
}

// random writes headers and offers that meet each other often, and are malformed now
// and then.
type random struct{ *rand.Rand }

func (r random) pick(of ...string) string { return of[r.IntN(len(of))] }

func (r random) maybe(percent int, s string) string {
	if r.IntN(100) < percent {
		return s
	}
	return ""
}

// spell changes nothing that has a meaning.
func (r random) spell(s string) string {
	if r.IntN(10) == 0 {
		return strings.ToUpper(s)
	}
	return s
}

func (r random) mediaType() string {
	return r.pick("text", "text", "application", "a") + "/" + r.pick("html", "plain", "json", "vnd.x+json", "b")
}

func (r random) param() string {
	name := r.pick("level", "version", "charset", "format")
	value := r.pick("1", "2", "utf-8", "flowed", `"1"`, `"utf-8"`, `"a,b;c"`, `"\1"`, `""`, `"a\"b"`)
	return r.spell(name) + "=" + r.spell(value)
}

func (r random) offer() string {
	s := r.mediaType()
	for r.IntN(3) == 0 && !strings.Contains(s, ";") {
		s += ";" + r.param()
	}
	return s
}

func (r random) offers() []string {
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

func (r random) weight() string {
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

func (r random) member() string {
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

func (r random) accept() []string {
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

func TestNegotiateAgreesWithReference(t *testing.T) {
	t.Parallel()
	headers := 20_000
	if testing.Short() || raceDetector {
		headers = 2_000
	}
	seed := rand.Uint64() // -count=N looks at N times as many
	r := random{rand.New(rand.NewPCG(seed, 0))}
	chosen := 0
	for range headers {
		accept, offers := r.accept(), r.offers()
		want, wantOK := refNegotiate(accept, offers...)
		got, ok := admit.Negotiate(accept, offers...)
		require.Equal(t, want, got, "seed %d: Accept %q, offers %q", seed, accept, offers)
		require.Equal(t, wantOK, ok, "seed %d: Accept %q, offers %q", seed, accept, offers)
		if n, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: offers}); err == nil {
			got, ok = n.Negotiate(accept)
			require.Equal(t, want, got, "seed %d: configured, Accept %q, offers %q", seed, accept, offers)
			require.Equal(t, wantOK, ok)
		}
		if ok {
			chosen++
		}
	}
	assert.Greater(t, chosen, headers/4, "too few of the headers accept anything")
	assert.Less(t, chosen, headers*19/20, "too few of the headers refuse")
}

func FuzzNegotiate(f *testing.F) {
	for _, example := range negotiations {
		f.Add(strings.Join(example.accept, "\n"), strings.Join(example.offers, "\n"), uint64(0))
	}
	r := random{rand.New(rand.NewPCG(1, 2))}
	for range 50 {
		f.Add(strings.Join(r.accept(), "\n"), strings.Join(r.offers(), "\n"), r.Uint64())
	}
	f.Fuzz(func(t *testing.T, header, offered string, seed uint64) {
		accept, offers := strings.Split(header, "\n"), strings.Split(offered, "\n")
		r := random{rand.New(rand.NewPCG(seed, 0))}
		got, ok := admit.Negotiate(accept, offers...)

		want, wantOK := refNegotiate(accept, offers...)
		require.Equal(t, want, got, "the reference")
		require.Equal(t, wantOK, ok, "the reference")
		if ok {
			require.Contains(t, offers, got)
		}
		same := func(accept []string, why string) {
			t.Helper()
			again, againOK := admit.Negotiate(accept, offers...)
			require.Equal(t, got, again, "%s: %q", why, accept)
			require.Equal(t, ok, againOK, "%s: %q", why, accept)
		}
		var members []string
		for _, line := range accept {
			members = append(members, refSplit(line, ',')...)
		}
		same(members, "a line for each member")
		r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		same(members, "another order")

		if joined := strings.Join(accept, ","); !strings.Contains(joined, `"`) {
			same([]string{joined}, "one line")
			same([]string{refLower(joined)}, "lower case")
			same([]string{refUpper(joined)}, "upper case")
			same([]string{" " + strings.NewReplacer(",", " ,\t", ";", "\t; ").Replace(joined) + " "}, "space")
			same([]string{strings.NewReplacer(",", ",,", ";", ";;").Replace(joined)}, "empty members and parameters")
		}
		if m, _ := refParse(got); ok {
			if _, weighted := m.get("q"); weighted {
				return
			}
			excluded := append(slices.Clone(accept), got+";q=0")
			again, againOK := admit.Negotiate(excluded, offers...)
			require.False(t, againOK && again == got, "%q was excluded", got)
		}
	})
}
