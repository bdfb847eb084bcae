package mediatype

import "math"

// Negotiate returns the index of the offer that the lines of an Accept header prefer, or
// -1 if they accept none (RFC 9110 §12.5.1). The most specific range that matches an offer
// gives its weight; of equal weights the earlier offer wins. Malformed members are
// ignored; if there is no other, the first offer is preferred. Its time is linear in the
// length of the header, and in the number of offers.
func Negotiate(accept []string, offers []Type) int {
	best, weight := -1, uint32(0)
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

// Prefers reports whether the lines of an Accept header name t, and either name other with a
// lower weight or do not name it. A wildcard names nothing.
func Prefers(accept []string, t, other Type) bool {
	offers := [2]Type{t, other}
	var ranks [2]rank
	rankOffers(accept, offers[:], ranks[:])
	return ranks[0].named() > ranks[1].named()
}

// rankOffers sets the rank of each offer to the highest rank of a range, and reports whether the
// header has a well-formed range at all.
func rankOffers(accept []string, offers []Type, ranks []rank) (found bool) {
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

// A rank is how specific a range is and, in its lower bits, its weight, so that the more specific
// of two ranges has the higher rank. Of equally specific ones the higher weight counts, except
// that 0, which excludes, counts before all others.
type rank uint64

const (
	rankAny   rank = 1 << 56 // of */*
	rankType  rank = 2 << 56 // of type/*
	rankExact rank = 3 << 56 // of type/subtype
	rankParam rank = 1 << 32 // of each parameter, in addition
)

// Weights are in billionths.
const (
	fullWeight     uint32 = 1_000_000_000  // of q=1
	weightExcludes uint32 = math.MaxUint32 // replaces 0 in a rank
)

// weight is 0 where no range has matched, or one excludes the offer.
func (r rank) weight() uint32 {
	if w := uint32(r); w != weightExcludes {
		return w
	}
	return 0
}

// named returns the weight of an offer whose type is named, and not matched by a wildcard.
func (r rank) named() uint32 {
	if r < rankExact {
		return 0
	}
	return r.weight()
}

// A mediaRange is a member of Accept. Its parts are slices of the header.
type mediaRange struct {
	name   string // type/subtype, or only *
	slash  int    // of name
	params string // empty if there is none but the weight
	base   rank   // what it gives to an offer that it matches, without parameters
}

// parseRange parses the member that begins at line[i], and returns the index after it: that of
// its comma, or the end. If the member is malformed, it returns where it found that.
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
	case star: // a single *, which some clients still send
		r.base = rankAny
	default:
		return r, i, false
	}
	r.name = line[start:i]

	var weight uint32
	if r.params, weight, i, ok = rangeParams(line, skipSpace(line, i)); !ok {
		return r, i, false
	}
	if weight == 0 {
		weight = weightExcludes
	}
	r.base += rank(weight)
	return r, i, true
}

// rangeParams parses the parameters of a range, from the first ";" on. A parameter q is the weight
// of the range, wherever it stands. A range with two weights is malformed.
func rangeParams(line string, i int) (params string, weight uint32, next int, ok bool) {
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

// rank returns the rank that r gives to an offer, or 0 if it does not match. It does not match if
// the range has a parameter that the offer lacks or has with another value. An offer without a
// charset matches any: its type has none, or is UTF-8.
func (r *mediaRange) rank(offer *Type) rank {
	switch {
	case r.base >= rankExact:
		if !sameName(r.name, offer.name) {
			return 0
		}
	case r.base >= rankType:
		if !sameName(r.name[:r.slash], offer.name[:offer.slash]) {
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
		offered, ok := offer.Param(name)
		switch {
		case ok && SameValue(offered, value):
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

// parseWeight parses the value of q (RFC 9110 §12.4.2). It also accepts what clients send beyond
// the grammar: more digits, none before the point, more than 1. Digits after the ninth are cut
// off, but do not make a weight 0.
func parseWeight(value string) (weight uint32, ok bool) {
	s := content(value)
	i, positive := 0, false // before the point
	for ; i < len(s) && isDigit(s[i]); i++ {
		positive = positive || s[i] != '0'
	}
	digits := i
	if i < len(s) && s[i] == '.' {
		unit := fullWeight
		for i++; i < len(s) && isDigit(s[i]); i++ {
			digits++
			unit /= 10
			weight += uint32(s[i]-'0') * unit
			if weight == 0 && s[i] != '0' {
				weight = 1
			}
		}
	}
	if i < len(s) || digits == 0 {
		return 0, false
	}
	if positive {
		weight = fullWeight
	}
	return weight, true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
