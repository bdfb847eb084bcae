package sqlkeys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/keyform"
)

func checkNetworks(networks []netip.Prefix) error {
	var faults []error
	for _, n := range networks {
		faults = append(faults, keyform.CheckNetwork(n))
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
		var err error
		if networks[i], err = keyform.ParseNetwork(t); err != nil {
			return nil, err
		}
	}
	return networks, nil
}

func formatNetworks(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return marshal(texts, "[]")
}

// checkLimits checks limits, which may be absent.
func checkLimits(limits []admit.Limit) error {
	if len(limits) == 0 {
		return nil
	}
	_, err := admit.CompleteLimits(limits)
	return err
}

func parseLimits(text []byte) ([]admit.Limit, error) {
	var all []keyform.Limit
	if err := parseArray(text, &all); err != nil || len(all) == 0 {
		return nil, err
	}
	limits := make([]admit.Limit, len(all))
	for i, l := range all {
		per, err := keyform.ParsePer(l.Per)
		if err != nil {
			return nil, fmt.Errorf(`"per" of the limit %q: %w`, l.Name, err)
		}
		limits[i] = admit.Limit{Name: l.Name, Requests: l.Requests, Per: per, Burst: l.Burst}
	}
	return limits, checkLimits(limits)
}

func formatLimits(limits []admit.Limit) string {
	all := make([]keyform.Limit, len(limits))
	for i, l := range limits {
		all[i] = keyform.Limit{Name: l.Name, Requests: l.Requests, Per: keyform.FormatPer(l.Per), Burst: l.Burst}
	}
	return marshal(all, "[]")
}

type quota = keyform.Quota[admit.Period]

func checkQuotas(quotas []admit.Quota) error {
	_, err := admit.CompleteQuotas(quotas)
	return err
}

func parseQuotas(text []byte) ([]admit.Quota, error) {
	var all []quota
	if err := parseArray(text, &all); err != nil || len(all) == 0 {
		return nil, err
	}
	quotas := make([]admit.Quota, len(all))
	for i, q := range all {
		quotas[i] = admit.Quota(q)
	}
	return quotas, checkQuotas(quotas)
}

func formatQuotas(quotas []admit.Quota) string {
	all := make([]quota, len(quotas))
	for i, q := range quotas {
		all[i] = quota(q)
	}
	return marshal(all, "[]")
}

// parseArray rejects unknown members, since one might restrict the key.
func parseArray(text []byte, into any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("[")) {
		return errors.New("it must be an array")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(into) // the column has exactly one value
}
