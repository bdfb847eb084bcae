// Package mint makes tokens: a prefix, an underscore, 160 random bits in base62, and a checksum
// (CRC32-IEEE of all before it), which detects a mistyped or cut token without asking a store.
package mint

import (
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"strings"
)

const (
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomBytes    = 20
	randomDigits   = 27 // 62^27 > 2^160
	checksumDigits = 6  // 62^6 > 2^32
)

// CheckPrefix returns an error unless the prefix has 1 to 32 characters of a-z, 0-9 and _.
func CheckPrefix(prefix string) error {
	if len(prefix) < 1 || len(prefix) > 32 || strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return fmt.Errorf("the prefix %q must have 1 to 32 characters of a-z, 0-9 and _", prefix)
	}
	return nil
}

// New returns a new token, or the error of CheckPrefix.
func New(prefix string) (token string, err error) {
	if err := CheckPrefix(prefix); err != nil {
		return "", err
	}
	var random [randomBytes]byte
	rand.Read(random[:]) // never fails
	b := append([]byte(prefix), '_')
	b = appendBase62(b, random[:], randomDigits)
	return string(appendChecksum(b, b)), nil
}

// Prefix returns the prefix of a token that New has made. It ends before the last underscore,
// since base62 has none.
func Prefix(token string) string {
	return token[:max(strings.LastIndexByte(token, '_'), 0)]
}

// WellFormed reports whether the rest of a token after its prefix has the form and the checksum
// of a token that New has made. It does not check the prefix.
func WellFormed(token string) bool {
	i := strings.LastIndexByte(token, '_')
	if len(token)-i-1 != randomDigits+checksumDigits {
		return false
	}
	for _, c := range []byte(token[i+1:]) {
		if strings.IndexByte(base62, c) < 0 {
			return false
		}
	}
	body := []byte(token[:len(token)-checksumDigits])
	return string(appendChecksum(nil, body)) == token[len(body):]
}

// appendBase62 appends a big-endian number with that many digits.
func appendBase62(b, number []byte, digits int) []byte {
	n := append([]byte(nil), number...)
	start := len(b)
	b = append(b, make([]byte, digits)...)
	for i := len(b) - 1; i >= start; i-- {
		rest := 0
		for j := range n { // long division by 62
			rest = rest<<8 | int(n[j])
			n[j] = byte(rest / 62)
			rest %= 62
		}
		b[i] = base62[rest]
	}
	return b
}

func appendChecksum(b, of []byte) []byte {
	sum := crc32.ChecksumIEEE(of)
	return appendBase62(b, []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, checksumDigits)
}
