package sqlkeys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/admit-go/admit"
)

// checkNetworks refuses what is not one network in its usual form. Host bits are not
// dropped: 192.0.2.7/24 may have been meant as one address, and would become 256. An IPv4
// network that is written as IPv6 would never match an address.
func checkNetworks(networks []netip.Prefix) error {
	var faults []error
	for _, n := range networks {
		switch a := n.Addr(); {
		case !n.IsValid():
			faults = append(faults, errors.New("a network is not valid"))
		case a.Is4In6() && n.Bits() >= 96:
			faults = append(faults, fmt.Errorf("%v is an IPv4 network in the form of IPv6; write %v", n, netip.PrefixFrom(a.Unmap(), n.Bits()-96)))
		case n != n.Masked():
			faults = append(faults, fmt.Errorf("%v is an address within a network; write %v for the network or %v for the address",
				n, n.Masked(), netip.PrefixFrom(a, a.BitLen())))
		}
	}
	return errors.Join(faults...)
}

func parseNetworks(text []byte) ([]netip.Prefix, error) {
	var texts []string
	if err := parseArray(text, &texts); err != nil || len(texts) == 0 {
		return nil, err
	}
	networks := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		n, err := netip.ParsePrefix(t)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network such as 192.0.2.0/24", t)
		}
		networks[i] = n
	}
	return networks, checkNetworks(networks)
}

func formatNetworks(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return marshal(texts, "[]")
}

// checkLimits is for limits that may be left out.
func checkLimits(limits []admit.Limit) error {
	if len(limits) == 0 {
		return nil
	}
	_, err := admit.CompleteLimits(limits)
	return err
}

// limit is an admit.Limit as the table and key files have it.
type limit struct {
	Name     string `json:"name,omitzero"`
	Requests int    `json:"requests"`
	Per      string `json:"per"`
	Burst    int    `json:"burst,omitzero"`
}

func parseLimits(text []byte) ([]admit.Limit, error) {
	var all []limit
	if err := parseArray(text, &all); err != nil || len(all) == 0 {
		return nil, err
	}
	limits := make([]admit.Limit, len(all))
	for i, l := range all {
		per, err := time.ParseDuration(l.Per)
		if err != nil {
			return nil, fmt.Errorf(`"per" of the limit %q is %q; it is a duration such as "60s" or "24h"`, l.Name, l.Per)
		}
		limits[i] = admit.Limit{Name: l.Name, Requests: l.Requests, Per: per, Burst: l.Burst}
	}
	return limits, checkLimits(limits)
}

func formatLimits(limits []admit.Limit) string {
	if len(limits) == 0 {
		return "[]"
	}
	all := make([]limit, len(limits))
	for i, l := range limits {
		all[i] = limit{l.Name, l.Requests, formatPer(l.Per), l.Burst}
	}
	text, _ := json.Marshal(all) // never fails for these
	return string(text)
}

// formatPer writes 1m and 24h, where String has 1m0s and 24h0m0s.
func formatPer(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parseArray takes no member that is not known: it might restrict the key.
func parseArray(text []byte, into any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("[")) {
		return errors.New("it must be an array")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("there is more after the array")
	}
	return nil
}
