package mediatype

import (
	"errors"
	"strings"
)

// Pattern matches one media type, or all that its wildcard allows.
type Pattern struct {
	prefix, suffix string // what the name of a type begins and ends with
	exact          bool   // the prefix is all of it
}

var (
	errPatternParams = errors.New("has parameters; name the type alone")
	errWildcard      = errors.New(`has a wildcard elsewhere than in "type/*" or "type/*+suffix"`)
)

// ParsePattern parses "type/subtype", "type/*" or "type/*+suffix" (RFC 6838 §4.2.8).
// Its errors continue a sentence, like those of Parse.
func ParsePattern(s string) (Pattern, error) {
	t, err := Parse(s)
	if err != nil {
		return Pattern{}, err
	}
	if t.params != "" {
		return Pattern{}, errPatternParams
	}
	before, after, wild := strings.Cut(t.name, "*")
	switch {
	case !wild:
		return Pattern{prefix: t.name, exact: true}, nil
	case len(before) != t.slash+1, after != "" && (after[0] != '+' || !IsToken(after[1:])), strings.Contains(after, "*"):
		return Pattern{}, errWildcard
	}
	return Pattern{prefix: before, suffix: after}, nil
}

// Exact returns the only type/subtype that p matches, or false if p has a wildcard.
func (p Pattern) Exact() (name string, ok bool) {
	if p.exact {
		return p.prefix, true
	}
	return "", false
}

// Matches reports whether p matches t. It ignores the parameters of t, and case. A wildcard matches
// at least one character.
func (p Pattern) Matches(t Type) bool {
	if p.exact {
		return sameName(t.name, p.prefix)
	}
	open := len(t.name) - len(p.prefix) - len(p.suffix)
	return open > 0 && sameName(t.name[:len(p.prefix)], p.prefix) && sameName(t.name[len(p.prefix)+open:], p.suffix)
}
