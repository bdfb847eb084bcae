package admit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Accept answers 406 to a client that takes none of the offers, which the body
// lists; the first offer is the server's favourite. Handlers read the one chosen
// with MediaTypeFrom; Negotiate has the rules. Every response has Vary: Accept, so
// a handler that varies by more must add to Vary, not set it. It panics without an
// offer, and on one that is no media type or is given twice.
func Accept(offers ...string) Middleware {
	n, err := newNegotiator(NegotiatorConfig{Offers: offers})
	if err != nil {
		panic("admit: Accept: " + err.Error())
	}
	return n.Wrap
}

// MediaTypeFrom returns the offer that the innermost Accept chose, as it was given
// there, or "".
func MediaTypeFrom(ctx context.Context) string {
	if s := find(ctx, slotMediaType); s != nil {
		return s.mediaType
	}
	return ""
}

// Negotiate returns the offer that the lines of an Accept header prefer, and false
// if they take none (RFC 9110 §12.5.1). The most specific range that matches an offer
// gives its weight; of equal weights the earlier offer wins. Malformed members are
// ignored; if no other is there, the first offer is returned. An offer that is no
// media type is passed over.
func Negotiate(accept []string, offers ...string) (string, bool) {
	parsed := make([]offer, 0, maxRanks)
	for _, text := range offers {
		if m, problem := parseMediaType(text); problem == "" && !m.hasWildcard() {
			parsed = append(parsed, offer{text: text, mediaType: m})
		}
	}
	if best := negotiate(accept, parsed); best >= 0 {
		return parsed[best].text, true
	}
	return "", false
}

// NegotiatorConfig is what NewNegotiator needs.
type NegotiatorConfig struct {
	// Offers are the media types that the handler can send, its favourite first.
	Offers []string
	// Fallback is the offer for a client that takes none of them, who then gets no
	// 406 (RFC 9110 §12.4.1). Empty: 406.
	Fallback string
}

// Negotiator is the configured form of Accept. It is read-only: any number of
// goroutines may use it, and it may wrap any number of handlers.
type Negotiator struct {
	offers   []offer
	fallback int // an index of offers; -1: 406
	refusal  *Error
	usual    []decided
}

// decided is a decision made at construction.
type decided struct {
	accept string
	offer  int
}

// NewNegotiator returns a Negotiator, or an error that joins every fault of c.
func NewNegotiator(c NegotiatorConfig) (*Negotiator, error) {
	n, err := newNegotiator(c)
	if err != nil {
		return nil, fmt.Errorf("admit: NewNegotiator: %w", err)
	}
	return n, nil
}

func newNegotiator(c NegotiatorConfig) (*Negotiator, error) {
	var faults []error
	if len(c.Offers) == 0 {
		faults = append(faults, errors.New(`no offer is given; name what the handler can send, such as "application/json"`))
	}
	n := &Negotiator{fallback: -1}
	for i, text := range c.Offers {
		m, problem := parseMediaType(text)
		_, weighted := m.value("q")
		switch {
		case problem != "":
		case m.hasWildcard():
			problem = "is a range; name each type that the handler can send"
		case weighted:
			problem = "has a weight; the order of the offers is their preference"
		case strings.TrimSpace(text) != text:
			problem = "has space around it"
		case containsFold(c.Offers[:i], text):
			problem = "is given twice"
		}
		if problem != "" {
			faults = append(faults, fmt.Errorf("offer %q %s", text, problem))
			continue
		}
		if text == c.Fallback {
			n.fallback = len(n.offers)
		}
		n.offers = append(n.offers, offer{text: text, mediaType: m})
	}
	if c.Fallback != "" && !slices.Contains(c.Offers, c.Fallback) {
		faults = append(faults, fmt.Errorf("the fallback %q is not one of the offers", c.Fallback))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	offers := slices.Clone(c.Offers)
	n.refusal = NewError(http.StatusNotAcceptable, "No accepted media type can be sent; the resource is available as "+strings.Join(offers, ", ")+".")
	n.refusal.Meta = map[string]any{"offers": offers}

	// Most programs send one of these, whole.
	for _, accept := range append([]string{"*/*"}, offers...) {
		n.usual = append(n.usual, decided{accept, negotiate([]string{accept}, n.offers)})
	}
	return n, nil
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(other string) bool { return strings.EqualFold(other, s) })
}

// Negotiate returns what Wrap chooses for the lines of an Accept header, the
// fallback included; false stands for 406. It allocates nothing.
func (n *Negotiator) Negotiate(accept []string) (string, bool) {
	if len(accept) == 1 {
		for i := range n.usual {
			if n.usual[i].accept == accept[0] {
				return n.offers[n.usual[i].offer].text, true
			}
		}
	}
	best := negotiate(accept, n.offers)
	if best < 0 {
		best = n.fallback
	}
	if best < 0 {
		return "", false
	}
	return n.offers[best].text, true
}

// Wrap lets a request in to next if the client takes one of the offers.
func (n *Negotiator) Wrap(next http.Handler) http.Handler {
	return wrap("Accept", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		offer, ok := n.Negotiate(r.Header["Accept"])
		if !ok {
			addVary(w.Header(), "Accept")
			WriteError(w, r, n.refusal)
			return
		}
		s, w, inner := in.fill(w, r, slotMediaType)
		defer s.leave(r, inner)
		s.mediaType = offer
		if h := w.Header(); len(h["Vary"]) == 0 {
			h["Vary"] = in.one("Accept")
		} else {
			addVary(h, "Accept")
		}
		in.ServeHTTP(w, inner)
	})
}

// prefersProblem reports whether the client names application/problem+json with a
// weight higher than that of application/json, or without naming the latter.
func prefersProblem(r *http.Request) bool {
	accept := r.Header["Accept"]
	for _, line := range accept {
		if strings.IndexByte(line, '+') >= 0 { // most headers have none: they are not parsed
			var ranks [2]rank
			rankOffers(accept, problemOrJSON, ranks[:])
			return ranks[0].named() > ranks[1].named()
		}
	}
	return false
}

var problemOrJSON = []offer{
	{mediaType: mediaType{name: "application/problem+json", slash: len("application")}},
	{mediaType: mediaType{name: "application/json", slash: len("application")}},
}

// An offer is a media type that a handler can send.
type offer struct {
	text string // as it was given
	mediaType
}

// negotiate returns the index of the offer to send, or -1. Its time is linear in the
// length of the header, and in the number of offers.
func negotiate(accept []string, offers []offer) int {
	best, weight := -1, 0
	for first := 0; first < len(offers); first += maxRanks {
		var ranks [maxRanks]rank
		group := offers[first:min(first+maxRanks, len(offers))]
		if !rankOffers(accept, group, ranks[:]) {
			return 0
		}
		for i := range group {
			if w := ranks[i].weight(); w > weight {
				best, weight = first+i, w
			}
		}
	}
	return best
}

// maxRanks is how many offers one pass over the header rates. Their ranks are on
// the stack.
const maxRanks = 16

// rankOffers gives each offer the rank of the range that speaks for it, and reports
// whether the header has any well-formed range at all.
func rankOffers(accept []string, offers []offer, ranks []rank) (found bool) {
	for _, line := range accept {
		for i := 0; i < len(line); i++ {
			var r mediaRange
			var ok bool
			if r, i, ok = parseRange(line, i); !ok {
				i = memberEnd(line, i)
				continue
			}
			found = true
			exact := r.base >= rankExact
			for k := range offers {
				if o := &offers[k]; !exact || len(o.name) == len(r.name) { // most differ in length
					ranks[k] = max(ranks[k], r.rank(o))
				}
			}
		}
	}
	return found
}

// A rank is how specific a range is and, below that, its weight, so that of two
// ranges the more specific one has the higher rank. Of equally specific ones
// the higher weight counts, but 0 before all: it excludes.
type rank uint64

const (
	rankAny   rank = 1 << 56 // of */*
	rankType  rank = 2 << 56 // of type/*
	rankExact rank = 3 << 56 // of type/subtype
	rankParam rank = 1 << 32 // of each parameter, in addition

	weightMask     rank = 1<<32 - 1
	fullWeight          = 1_000_000_000 // of q=1
	weightExcludes      = 1<<32 - 1     // in the place of 0
)

// weight is 0 where no range has matched, or one excludes the offer.
func (r rank) weight() int {
	if w := r & weightMask; w != weightExcludes {
		return int(w)
	}
	return 0
}

// named is the weight of an offer whose type is named, not matched by a wildcard.
func (r rank) named() int {
	if r < rankExact {
		return 0
	}
	return r.weight()
}

// A mediaRange is a member of Accept. Its params are empty if it has no parameter
// but the weight.
type mediaRange struct {
	mediaType
	base rank // what it gives to an offer that it matches, without parameters
}

// parseRange parses the member that begins at line[i] and returns the index of what
// follows it: its comma, or the end. If there is no well-formed member, it returns
// where it saw that.
func parseRange(line string, i int) (r mediaRange, next int, ok bool) {
	start := skipSpace(line, i)
	i = tokenEnd(line, start)
	r.slash = i - start
	star := r.slash == 1 && line[start] == '*'
	switch {
	case r.slash > 0 && i < len(line) && line[i] == '/':
		subtype := i + 1
		i = tokenEnd(line, subtype)
		switch anything := i == subtype+1 && line[subtype] == '*'; {
		case i == subtype || star && !anything:
			return r, i, false
		case star:
			r.base = rankAny
		case anything:
			r.base = rankType
		default:
			r.base = rankExact
		}
	case star: // alone, as some clients still send it
		r.base = rankAny
	default:
		return r, i, false
	}
	r.name = line[start:i]

	var weight int
	if r.params, weight, i, ok = rangeParams(line, skipSpace(line, i)); !ok {
		return r, i, false
	}
	if weight == 0 {
		weight = weightExcludes
	}
	r.base += rank(weight)
	return r, i, true
}

// rangeParams parses the parameters of a range, from the first ";" on. One called q,
// wherever it is, is the weight and no parameter. Two weights contradict each other.
func rangeParams(line string, i int) (params string, weight, next int, ok bool) {
	start, named, weighted := i+1, false, false
	weight = fullWeight
	for i < len(line) && line[i] != ',' {
		if line[i] != ';' {
			return "", 0, i, false
		}
		var name, value string
		name, value, i, ok = param(line, i+1)
		switch {
		case !ok:
			return "", 0, i, false
		case isWeight(name):
			if weight, ok = parseWeight(value); !ok || weighted {
				return "", 0, i, false
			}
			weighted = true
		case name != "":
			named = true
		}
	}
	if named {
		params = line[start:i]
	}
	return params, weight, i, true
}

// rank returns the rank that r gives to an offer, or 0 if it does not match it. A
// parameter of the range that the offer has otherwise, or not at all, is no match,
// but charset is not asked of an offer without one: its type has none, or is UTF-8.
func (r *mediaRange) rank(o *offer) rank {
	switch {
	case r.base >= rankExact:
		if !sameName(r.name, o.name) {
			return 0
		}
	case r.base >= rankType:
		if !sameName(r.name[:r.slash], o.name[:o.slash]) {
			return 0
		}
	}
	total := r.base
	for i := 0; i < len(r.params); {
		name, value, next, _ := param(r.params, i)
		i = next + 1
		if name == "" || isWeight(name) {
			continue
		}
		offered, ok := o.value(name)
		switch {
		case ok && sameValue(offered, value):
			total += rankParam
		case ok || !sameName(name, "charset"):
			return 0
		}
	}
	return total
}

// memberEnd returns the index of the comma that ends a malformed member. Commas in
// quoted strings do not.
func memberEnd(line string, i int) int {
	for i < len(line) && line[i] != ',' {
		if line[i] == '"' {
			i, _ = quotedEnd(line, i)
		} else {
			i++
		}
	}
	return i
}

func isWeight(name string) bool { return name == "q" || name == "Q" }

// parseWeight parses the value of q (RFC 9110 §12.4.2) in billionths. It takes what
// clients send beyond the grammar: more digits, none before the point, more than 1.
// Digits after the ninth are cut off, but do not turn a weight into 0.
func parseWeight(s string) (weight int, ok bool) {
	s = content(s)
	whole, i := 0, 0
	for ; i < len(s) && isDigit(s[i]); i++ {
		whole |= int(s[i] - '0')
	}
	digits := i
	if i < len(s) && s[i] == '.' {
		unit := fullWeight
		for i++; i < len(s) && isDigit(s[i]); i++ {
			digits++
			unit /= 10
			weight += int(s[i]-'0') * unit
			if weight == 0 && s[i] != '0' {
				weight = 1
			}
		}
	}
	if i < len(s) || digits == 0 {
		return 0, false
	}
	if whole > 0 {
		weight = fullWeight
	}
	return weight, true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
