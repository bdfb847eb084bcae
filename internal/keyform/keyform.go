// Package keyform is the written form of the limits, quotas and networks of a key, which is the
// same in a key file and in the columns of a table.
package keyform

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Limit is an admit.Limit in JSON.
type Limit struct {
	Name     string `json:"name,omitzero"`
	Requests int    `json:"requests"`
	Per      string `json:"per"` // see ParsePer
	Burst    int    `json:"burst,omitzero"`
}

// Quota is an admit.Quota in JSON. With admit.Period as P, the types can be converted to each
// other.
type Quota[P any] struct {
	Name     string `json:"name,omitzero"`
	Requests int64  `json:"requests"`
	Every    P      `json:"every"`
	Soft     bool   `json:"soft,omitzero"`
}

// ParsePer parses a Go duration, such as 60s or 24h. It does not check whether a limit may have
// it.
func ParsePer(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf(`%q is not a duration such as "60s" or "24h"`, s)
	}
	return d, nil
}

// FormatPer formats a duration as 1m or 24h, where its String has 1m0s or 24h0m0s.
func FormatPer(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ParseNetwork parses a network, and checks it with CheckNetwork.
func ParseNetwork(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 192.0.2.0/24", s)
	}
	return n, CheckNetwork(n)
}

// CheckNetwork rejects a network that is not in its usual form. It does not drop host bits:
// 192.0.2.7/24 may have been meant as one address, and would become 256. An IPv4 network in the
// form of IPv6 would never match an address.
func CheckNetwork(n netip.Prefix) error {
	switch a := n.Addr(); {
	case !n.IsValid():
		return errors.New("a network is not valid")
	case a.Is4In6() && n.Bits() >= 96:
		return fmt.Errorf("%v is an IPv4 network in the form of IPv6; write %v", n, netip.PrefixFrom(a.Unmap(), n.Bits()-96).Masked())
	case n != n.Masked():
		return fmt.Errorf("%v is an address within a network; write %v for the network or %v for the address", n, n.Masked(), netip.PrefixFrom(a, a.BitLen()))
	}
	return nil
}
