package admit

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
)

// Key is who calls: what a KeyStore knows about an API key. It is read-only once
// handed out. A zero time is no bound; a time in the future is not there yet.
type Key struct {
	ID, Owner, Plan                 string
	Scopes                          []string
	NotBefore, ExpiresAt, RevokedAt time.Time
	Meta                            map[string]string
}

// Digest is the SHA-256 of a token. Stores know keys by it and never see a token.
type Digest [32]byte

// String returns the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads what String returns.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if _, err := hex.Decode(d[:], []byte(s[:min(len(s), 64)])); err != nil || len(s) != 64 {
		return Digest{}, errors.New("admit: a digest has 64 hexadecimal digits")
	}
	return d, nil
}

// DigestOf returns the digest by which stores know a token.
func DigestOf(token string) Digest {
	// Tokens of the usual length are hashed without an allocation.
	var usual [128]byte
	if len(token) <= len(usual) {
		return sha256.Sum256(usual[:copy(usual[:], token)])
	}
	return sha256.Sum256([]byte(token))
}

// ErrKeyNotFound is a KeyStore's answer that there is no such key. Any other error
// is an outage.
var ErrKeyNotFound = errors.New("admit: no such key")

// KeyStore finds keys by digest, for any number of goroutines. A key that has expired
// or is revoked is still found: Auth decides.
type KeyStore interface {
	LookupKey(ctx context.Context, d Digest) (*Key, error)
}

// KeyMap is a KeyStore in memory. It must not change while it is in use.
type KeyMap map[Digest]*Key

// LookupKey implements KeyStore.
func (m KeyMap) LookupKey(_ context.Context, d Digest) (*Key, error) {
	if k := m[d]; k != nil {
		return k, nil
	}
	return nil, ErrKeyNotFound
}

// Knows is true: see AuthConfig.Failures.
func (m KeyMap) Knows(Digest) bool { return true }

// The shape of a minted token: prefix, underscore, 27 digits of randomness, 6 digits
// of checksum.
const (
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomBytes    = 20
	randomDigits   = 27 // 62^27 > 2^160
	checksumDigits = 6  // 62^6 > 2^32
)

// Mint makes a token: the prefix, an underscore, 160 random bits in base62 and a
// checksum (CRC32-IEEE of all before it). Secret scanners find it by
// prefix_[0-9A-Za-z]{33}. Give the token to its owner and keep the digest; the hint
// may be shown to tell keys apart. It panics unless the prefix is 1 to 32 of
// a-z 0-9 _.
func Mint(prefix string) (token string, d Digest, hint string) {
	if err := checkPrefix(prefix); err != nil {
		panic("admit: Mint: " + err.Error())
	}
	var random [randomBytes]byte
	rand.Read(random[:]) // never fails
	b := append([]byte(prefix), '_')
	b = appendBase62(b, random[:], randomDigits)
	token = string(appendChecksum(b, b))
	return token, DigestOf(token), token[:len(prefix)+5] + "..."
}

func checkPrefix(prefix string) error {
	if len(prefix) < 1 || len(prefix) > 32 || strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return fmt.Errorf("the prefix %q is not 1 to 32 of a-z 0-9 _", prefix)
	}
	return nil
}

// appendBase62 appends the big-endian number as so many digits.
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

// mintedPrefix returns the prefix that a token has if Mint made it. Base62 has no
// underscore, so it ends at the last one.
func mintedPrefix(token string) string {
	return token[:max(strings.LastIndexByte(token, '_'), 0)]
}

// wellMinted reports whether a token with a prefix that Mint takes has the shape and the
// checksum of Mint.
func wellMinted(token string) bool {
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
