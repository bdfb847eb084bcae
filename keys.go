package admit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/admit-go/admit/internal/mint"
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

// Mint makes a token: the prefix, an underscore, 160 random bits in base62 and a
// checksum (CRC32-IEEE of all before it). Secret scanners find it by
// prefix_[0-9A-Za-z]{33}. Give the token to its owner and keep the digest; the hint
// may be shown to tell keys apart. It panics unless the prefix is 1 to 32 of
// a-z 0-9 _.
func Mint(prefix string) (token string, d Digest, hint string) {
	token, err := mint.New(prefix)
	if err != nil {
		panic("admit: Mint: " + err.Error())
	}
	return token, DigestOf(token), token[:len(prefix)+5] + "..."
}
