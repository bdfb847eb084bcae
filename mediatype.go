package admit

import "strings"

// mediaType is a media type as it was written (RFC 9110 §8.3.1), cut and not copied.
type mediaType struct {
	name   string // type/subtype
	slash  int    // of name
	params string // what follows the first ";"; well formed, or empty
}

// parseMediaType parses the media type that is all of s. The problem is empty if
// it is well formed.
func parseMediaType(s string) (m mediaType, problem string) {
	start := skipSpace(s, 0)
	m.slash = tokenEnd(s, start) - start
	if at := start + m.slash; m.slash == 0 || at == len(s) || s[at] != '/' {
		return m, "is not of the form type/subtype"
	}
	subtype := start + m.slash + 1
	i := tokenEnd(s, subtype)
	if i == subtype {
		return m, "is not of the form type/subtype"
	}
	m.name = s[start:i]

	i = skipSpace(s, i)
	if i == len(s) {
		return m, ""
	}
	if s[i] != ';' {
		return m, "has something else after type/subtype than parameters"
	}
	m.params = s[i+1:]
	var seen [maxParams]string
	count := 0
	for i < len(s) {
		name, _, next, ok := param(s, i+1)
		if !ok || next < len(s) && s[next] != ';' {
			return m, "has a parameter that is not of the form name=value"
		}
		if i = next; name == "" {
			continue
		}
		if strings.IndexByte(name, '*') >= 0 { // mail's RFC 2231, which some parsers decode
			return m, "has a parameter with a * in its name, which HTTP does not use"
		}
		if count == maxParams {
			return m, "has more parameters than any type needs"
		}
		for _, other := range seen[:count] {
			if strings.EqualFold(name, other) {
				return m, "has a parameter twice"
			}
		}
		seen[count] = name
		count++
	}
	return m, ""
}

// maxParams bounds the search for a parameter that is there twice. The types that
// the IANA registry has, have a handful at most.
const maxParams = 16

func (m mediaType) hasWildcard() bool { return strings.IndexByte(m.name, '*') >= 0 }

// value returns the value of a parameter as it was written, quotes included.
func (m mediaType) value(name string) (string, bool) {
	for i := 0; i < len(m.params); {
		n, value, next, _ := param(m.params, i)
		if sameName(n, name) {
			return value, true
		}
		i = next + 1
	}
	return "", false
}

// param parses the parameter that begins at s[i], after a ";" (RFC 9110 §5.6.6). It
// returns its name, its value as it was written, and the index of what follows it and
// the space after it. The name is empty if there is no parameter, as in "a/b;;c=d".
// Space around "=" is taken, as most parsers do.
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

// sameName compares tokens that have no case, such as types and the names of
// parameters.
func sameName(a, b string) bool {
	return len(a) == len(b) && strings.EqualFold(a, b)
}

// sameValue compares values of parameters as they were written. A quoted string is
// the same as the token that it quotes (RFC 9110 §8.3.1). Case is ignored, because
// for most parameters, charset among them, it has no meaning.
func sameValue(a, b string) bool {
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

// content is what a quoted string has between its quotes, escapes included. No value is
// empty as it was written.
func content(value string) string {
	if value[0] == '"' {
		return value[1 : len(value)-1]
	}
	return value
}

// escape is 1 where the first character of the content of a quoted string is
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

// quotedEnd returns the index after the quoted string that begins at s[i]; if
// nothing ends it, the length of s and false.
func quotedEnd(s string, i int) (end int, ok bool) {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i + 1, true
		case '\\':
			i++
		}
	}
	return len(s), false
}

// tokenEnd returns the index of the first byte from s[i] on that no token has.
func tokenEnd(s string, i int) int {
	for i < len(s) && tokenBytes[s[i]] {
		i++
	}
	return i
}

func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

// tokenBytes are those of a token (RFC 9110 §5.6.2).
var tokenBytes = func() (is [256]bool) {
	for c := range 256 {
		is[c] = isToken(string([]byte{byte(c)}))
	}
	return is
}()
