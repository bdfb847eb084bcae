package admit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/admit-go/admit/internal/mint"
)

// Key is what a KeyStore knows about an API key, and so about its caller. It is read-only once
// a store has returned it.
type Key struct {
	// ID names the key in logs, limits and stores. Required: a request whose key has no ID gets
	// 500.
	ID string
	// Owner is who the key belongs to, such as a customer.
	Owner string
	// Plan is the Name of one of the Plans.
	Plan string
	// Scopes are what RequireScopes checks.
	Scopes []string
	// Limits, if not empty, replace those of the plan and of the Limiter for this key, in every
	// Limiter inside the Auth.
	Limits []Limit
	// Quotas, if not empty, replace those of the plan that have the same names, at once and in
	// mid-period, and add to the others: see Quotas.
	Quotas []Quota
	// Networks, if not empty, are the only networks from which the key may be used. A request
	// from another address, as ClientIPFrom finds it, or without an address gets 403
	// address_not_allowed.
	Networks []netip.Prefix
	// NotBefore is when the key becomes valid; ExpiresAt and RevokedAt are when it stops being
	// valid. The zero time means no bound.
	NotBefore, ExpiresAt, RevokedAt time.Time
	// Meta is for the service. This package does not use it.
	Meta map[string]string
}

// KeyStatus says whether a key is valid.
type KeyStatus int

const (
	// KeyValid means that the key may be used.
	KeyValid KeyStatus = iota
	// KeyEarly means that the key becomes valid at its NotBefore.
	KeyEarly
	// KeyExpired means that the key is past its ExpiresAt.
	KeyExpired
	// KeyRevoked means that the key is past its RevokedAt, whatever the other times are.
	KeyRevoked
)

// String returns valid, early, expired or revoked.
func (s KeyStatus) String() string {
	switch s {
	case KeyValid:
		return "valid"
	case KeyEarly:
		return "early"
	case KeyExpired:
		return "expired"
	case KeyRevoked:
		return "revoked"
	default:
		return "KeyStatus(" + strconv.Itoa(int(s)) + ")"
	}
}

// Status returns whether the key is valid at a time. At ExpiresAt itself the key has expired,
// at RevokedAt it is revoked, and at NotBefore it is valid.
func (k *Key) Status(now time.Time) KeyStatus {
	switch {
	case !k.RevokedAt.IsZero() && !now.Before(k.RevokedAt):
		return KeyRevoked
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return KeyExpired
	case now.Before(k.NotBefore):
		return KeyEarly
	default:
		return KeyValid
	}
}

// refuses returns the rejection of a request from an address, or nil.
func (k *Key) refuses(addr netip.Addr) *Error {
	if len(k.Networks) == 0 {
		return nil
	}
	addr = addr.Unmap().WithZone("")
	for _, network := range k.Networks {
		if network.Contains(addr) || network.Addr().Is4In6() && network.Contains(netip.AddrFrom16(addr.As16())) {
			return nil
		}
	}
	return errAddressNotAllowed
}

var (
	errNoKeyID           = errors.New("admit: the key of the request has no ID; the KeyStore, or the middleware that calls WithKey, must set Key.ID")
	errAddressNotAllowed = &Error{Status: http.StatusForbidden, Code: "address_not_allowed", Message: "The credential may not be used from this address."}
)

// Digest is the SHA-256 of a token. Stores know keys by their digests and never see a token.
type Digest [32]byte

// String returns the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest parses a digest in the form of String.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if _, err := hex.Decode(d[:], []byte(s[:min(len(s), 64)])); err != nil || len(s) != 64 {
		return Digest{}, errors.New("admit: a digest has 64 hexadecimal digits")
	}
	return d, nil
}

// MarshalText implements encoding.TextMarshaler. The text is hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. See ParseDigest.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := ParseDigest(string(text))
	if err == nil {
		*d = parsed
	}
	return err
}

// DigestOf returns the digest of a token.
func DigestOf(token string) Digest {
	// Tokens of the usual length are hashed without an allocation.
	var usual [128]byte
	if len(token) <= len(usual) {
		return sha256.Sum256(usual[:copy(usual[:], token)])
	}
	return sha256.Sum256([]byte(token))
}

// ErrKeyNotFound is returned by a KeyStore that has no such key. Any other error is answered
// with 503. If it has a *ConfigError in its chain, the key is there but cannot be used, such as
// a row whose networks cannot be parsed. Otherwise it is an outage, in which a KeyCache may go
// on with the keys that it has.
var ErrKeyNotFound = errors.New("admit: no such key")

// KeyStore looks up keys by digest. It must be safe for concurrent use. It returns a key that
// has expired or is revoked too: Auth decides. A store that has its keys in memory should also
// implement KeyKnower. A store that wraps another hides the Knows of the other, unless it has
// one itself.
type KeyStore interface {
	LookupKey(ctx context.Context, d Digest) (*Key, error)
}

// KeyKnower may be implemented by a KeyStore. Knows reports whether the look-up of d cannot be
// a guess, because the store has seen d, or has all keys in memory. AuthConfig.Failures does
// not throttle such a look-up.
type KeyKnower interface {
	Knows(d Digest) bool
}

// KeyMap is a KeyStore in memory. It must not change while it is in use.
type KeyMap map[Digest]*Key

// fault reports a key that cannot be used. A map has no order, so it reports only one.
func (m KeyMap) fault() error {
	for d, k := range m {
		if k == nil {
			continue
		}
		field := "KeyMap[" + d.String()[:8] + "...]"
		var f faults
		if k.ID == "" {
			f.add(field+".ID", "is empty; give each key an ID")
		}
		for i, network := range k.Networks {
			if !network.IsValid() {
				f.add(fmt.Sprintf("%s.Networks[%d]", field, i), "is not valid; use an address and a number of bits, such as 192.0.2.0/24")
			}
		}
		f.within(field+".Limits", checkLimits(k.Limits))
		f.within(field+".Quotas", checkQuotas(k.Quotas))
		if err := f.err(); err != nil {
			return err
		}
	}
	return nil
}

// LookupKey implements KeyStore.
func (m KeyMap) LookupKey(_ context.Context, d Digest) (*Key, error) {
	if k := m[d]; k != nil {
		return k, nil
	}
	return nil, ErrKeyNotFound
}

// Knows implements KeyKnower. It is always true, since a KeyMap has all keys in memory.
func (m KeyMap) Knows(Digest) bool { return true }

// Mint makes a token: the prefix, an underscore, 160 random bits in base62, and a checksum
// (CRC32-IEEE of everything before it). Secret scanners find it with prefix_[0-9A-Za-z]{33}.
// Give the token to its owner and store the digest. The hint may be shown, to tell keys apart.
// Mint panics unless the prefix is 1 to 32 of a-z 0-9 _.
func Mint(prefix string) (token string, d Digest, hint string) {
	token, err := mint.New(prefix)
	if err != nil {
		panic("admit: Mint: " + err.Error())
	}
	return token, DigestOf(token), token[:len(prefix)+5] + "..."
}
