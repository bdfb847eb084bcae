package sqlquota

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// countID identifies a count: the SHA-256 of its account, quota and period.
type countID [sha256.Size]byte

func idOf(account, quota, period string) countID {
	var b []byte
	for _, s := range []string{account, quota, period} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}

// escape returns a text that every column can store. Different strings have different texts.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsAny(s, "\x00\\") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == 0 || r == '\\' || r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02X`, s[i])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// unescape reverses escape. It does not change what escape cannot have written.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for {
		before, after, more := strings.Cut(text, `\`)
		b.WriteString(before)
		if !more {
			return b.String()
		}
		if len(after) >= 3 && after[0] == 'x' {
			if c, err := hex.DecodeString(after[1:3]); err == nil {
				b.Write(c)
				text = after[3:]
				continue
			}
		}
		b.WriteByte('\\')
		text = after
	}
}
