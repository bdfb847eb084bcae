// Package mediatype parses media types and the syntax that they are made of (tokens, parameters,
// quoted strings, lists), and decides which media type a client prefers. Headers are lines of
// text; it does not know requests. Its results depend only on the arguments, and only Quote
// allocates.
package mediatype

import (
	"errors"
	"strings"
)

// Type is a media type as it was written (RFC 9110 §8.3.1). Its parts are slices of the text that
// was parsed.
type Type struct {
	text   string // what was parsed
	name   string // type/subtype
	slash  int    // of name
	params string // what follows the first ";"; well formed, or empty
}

// The errors of Parse continue a sentence that has the text as its subject.
var (
	errForm      = errors.New("is not of the form type/subtype")
	errRest      = errors.New("has something else after type/subtype than parameters")
	errParam     = errors.New("has a parameter that is not of the form name=value")
	errMailParam = errors.New("has a parameter with a * in its name, which HTTP does not use")
	errManyParam = errors.New("has more parameters than any type needs")
	errSameParam = errors.New("has a parameter twice")
)

// maxParams bounds the search for a duplicate parameter. The types of the IANA registry have only
// a few.
const maxParams = 16

// Parse parses s, which is one media type with optional space around it. Wildcards are tokens like
// others: see HasWildcard.
func Parse(s string) (Type, error) {
	t := Type{text: s}
	start := skipSpace(s, 0)
	t.slash = tokenEnd(s, start) - start
	if at := start + t.slash; t.slash == 0 || at == len(s) || s[at] != '/' {
		return Type{}, errForm
	}
	subtype := start + t.slash + 1
	i := tokenEnd(s, subtype)
	if i == subtype {
		return Type{}, errForm
	}
	t.name = s[start:i]

	i = skipSpace(s, i)
	if i == len(s) {
		return t, nil
	}
	if s[i] != ';' {
		return Type{}, errRest
	}
	t.params = s[i+1:]
	var seen [maxParams]string
	count := 0
	for i < len(s) {
		name, _, next, ok := param(s, i+1)
		if !ok || next < len(s) && s[next] != ';' {
			return Type{}, errParam
		}
		if i = next; name == "" {
			continue
		}
		if strings.IndexByte(name, '*') >= 0 { // RFC 2231, which some parsers decode
			return Type{}, errMailParam
		}
		if count == maxParams {
			return Type{}, errManyParam
		}
		for _, other := range seen[:count] {
			if strings.EqualFold(name, other) {
				return Type{}, errSameParam
			}
		}
		seen[count] = name
		count++
	}
	return t, nil
}

// String returns the text that was parsed.
func (t Type) String() string { return t.text }

// HasWildcard reports whether there is a * in the type or the subtype.
func (t Type) HasWildcard() bool { return strings.IndexByte(t.name, '*') >= 0 }

// IsJSON reports whether content of the type is JSON, by its name (RFC 6839 §3.1).
func (t Type) IsJSON() bool {
	const suffix = "+json"
	before := len(t.name) - len(suffix)
	return sameName(t.name, "application/json") || before > t.slash+1 && sameName(t.name[before:], suffix) && !t.HasWildcard()
}

// Param returns the value of a parameter as it was written, including quotes. The name is not
// case-sensitive. SameValue compares such values.
func (t Type) Param(name string) (value string, ok bool) {
	for i := 0; i < len(t.params); {
		n, value, next, _ := param(t.params, i)
		if sameName(n, name) && n != "" {
			return value, true
		}
		i = next + 1
	}
	return "", false
}

// param parses the parameter that begins at s[i], after a ";" (RFC 9110 §5.6.6). It
// returns its name, its value as it was written, and the index of what follows it and
// the space after it. The name is empty if there is no parameter, as in "a/b;;c=d".
// Space around "=" is accepted, as by most parsers.
func param(s string, i int) (name, value string, next int, ok bool) {
	start := skipSpace(s, i)
	i = tokenEnd(s, start)
	if i == start {
		return "", "", i, true
	}
	name = s[start:i]
	i = skipSpace(s, i)
	if i == len(s) || s[i] != '=' {
		return "", "", i, false
	}
	start = skipSpace(s, i+1)
	if start < len(s) && s[start] == '"' {
		i, ok = quotedEnd(s, start)
	} else {
		i = tokenEnd(s, start)
		ok = i > start
	}
	return name, s[start:i], skipSpace(s, i), ok
}

// sameName compares tokens that are not case-sensitive, such as types and the names of parameters.
func sameName(a, b string) bool {
	return len(a) == len(b) && strings.EqualFold(a, b)
}

// SameValue compares values of parameters, which are tokens or quoted strings. A quoted string
// equals the token that it quotes (RFC 9110 §8.3.1). Case is ignored, since it has no meaning for
// most parameters, such as charset.
func SameValue(a, b string) bool {
	if a == b {
		return true
	}
	a, b = content(a), content(b)
	for a != "" && b != "" {
		i, j := escape(a), escape(b)
		if lower(a[i]) != lower(b[j]) {
			return false
		}
		a, b = a[i+1:], b[j+1:]
	}
	return a == b
}

// content returns what is between the quotes of a quoted string, including escapes, or a token as
// it is.
func content(value string) string {
	if value[0] == '"' { // a value has at least one byte
		return value[1 : len(value)-1]
	}
	return value
}

// escape returns 1 where the first character of the content of a quoted string is
// escaped, else 0. No token has a backslash, and no quoted string ends in one.
func escape(content string) int {
	if content[0] == '\\' {
		return 1
	}
	return 0
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
