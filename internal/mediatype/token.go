package mediatype

import "strings"

// IsToken reports whether s is a token (RFC 9110 §5.6.2), as methods and the names of
// headers are.
func IsToken(s string) bool { return s != "" && tokenEnd(s, 0) == len(s) }

// tokenBytes are the bytes of a token: visible ASCII characters except delimiters.
var tokenBytes = func() (is [256]bool) {
	for c := byte('!'); c <= '~'; c++ {
		is[c] = strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) < 0
	}
	return is
}()

// tokenEnd returns the index of the first byte from s[i] on that cannot be in a token.
func tokenEnd(s string, i int) int {
	for i < len(s) && tokenBytes[s[i]] {
		i++
	}
	return i
}

// skipSpace returns the index of the first byte from s[i] on that is not a space
// (RFC 9110 §5.6.3).
func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

// quotedEnd returns the index after the quoted string that begins at s[i]. If the string does not
// end, it returns the length of s and false.
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

// Quote returns s as a quoted string (RFC 9110 §5.6.4). Control characters, and bytes
// that are not ASCII, become question marks.
func Quote(s string) string {
	b := []byte{'"'}
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// ListContains reports whether the lines of a header that is a list (RFC 9110 §5.6.1)
// have the member name, whatever its case.
func ListContains(lines []string, name string) bool {
	for _, line := range lines {
		for member := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(member), name) {
				return true
			}
		}
	}
	return false
}
