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

// Key is who calls: what a KeyStore knows about an API key. It is read-only once it has
// been handed out.
type Key struct {
	// ID names the key in logs, limits and stores. Required: a request with a key that has
	// none is answered 500.
	ID string
	// Owner is whose key it is.
	Owner string
	// Plan is the Name of one of the Plans.
	Plan string
	// Scopes are what RequireScopes looks at.
	Scopes []string
	// Limits, if there are any, replace those of the plan and of the Limiter for this key, in
	// every Limiter inside of the Auth.
	Limits []Limit
	// Quotas, if there are any, replace those of the plan that have the same names, at once and
	// in mid-period, and add to the others: see Quotas.
	Quotas []Quota
	// Networks, if there are any, are where the key may be used from: a request from another
	// address, as ClientIPFrom finds it, or from none, is refused with 403
	// address_not_allowed.
	Networks []netip.Prefix
	// NotBefore, ExpiresAt and RevokedAt are when the key becomes valid and when it ends. The
	// zero time is no bound.
	NotBefore, ExpiresAt, RevokedAt time.Time
	// Meta is anything else. The package does not look at it.
	Meta map[string]string
}

// KeyStatus says whether a key is valid.
type KeyStatus int

const (
	// KeyValid is a key that may be used.
	KeyValid KeyStatus = iota
	// KeyEarly is one that will be valid at its NotBefore.
	KeyEarly
	// KeyExpired is one whose ExpiresAt has come.
	KeyExpired
	// KeyRevoked is one whose RevokedAt has come, whatever else it is.
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

// Status returns what the key is worth at a time. A bound belongs to what follows it: at
// ExpiresAt the key has expired.
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

// refuses returns the refusal of a request from an address, or nil.
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
	errNoKeyID           = errors.New("admit: the key of the request has no ID; who makes a Key, a KeyStore or a wrapper that calls WithKey, must name it")
	errAddressNotAllowed = &Error{Status: http.StatusForbidden, Code: "address_not_allowed", Message: "The API key may not be used from this address."}
)

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

// MarshalText implements encoding.TextMarshaler, in hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler: see ParseDigest.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := ParseDigest(string(text))
	if err == nil {
		*d = parsed
	}
	return err
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

// ErrKeyNotFound is a KeyStore's answer that there is no such key. Any other error is
// answered with 503. One with a *ConfigError in its chain says that the key is there and
// cannot be used, as a row whose networks cannot be read; any other is an outage, in which
// a KeyCache may go on with what it knew.
var ErrKeyNotFound = errors.New("admit: no such key")

// KeyStore finds keys by digest, for any number of goroutines. A key that has expired
// or is revoked is still found: Auth decides. A store that answers without asking anybody
// should be a KeyKnower too; one that is put around another hides the other's Knows
// unless it has one itself.
type KeyStore interface {
	LookupKey(ctx context.Context, d Digest) (*Key, error)
}

// KeyKnower is what a KeyStore may implement besides: Knows reports whether looking up d
// cannot be a guess, because the store has seen d, or asks nobody. AuthConfig.Failures
// refuses no such look-up.
type KeyKnower interface {
	Knows(d Digest) bool
}

// KeyMap is a KeyStore in memory. It must not change while it is in use.
type KeyMap map[Digest]*Key

// fault reports a key that could not be used. They have no order, so one is enough.
func (m KeyMap) fault() error {
	for d, k := range m {
		if k == nil {
			continue
		}
		field := "KeyMap[" + d.String()[:8] + "...]"
		var f faults
		if k.ID == "" {
			f.add(field+".ID", "is empty; name the key")
		}
		for i, network := range k.Networks {
			if !network.IsValid() {
				f.add(fmt.Sprintf("%s.Networks[%d]", field, i), "is not valid; it is an address and a number of bits, such as 192.0.2.0/24")
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

// Knows implements KeyKnower: it is always true, since a KeyMap asks nobody.
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
