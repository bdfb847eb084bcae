package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
)

// never is what --expires says for a key without an end. An empty --expires is an error, as
// that of a variable that is not set must not make a key last for ever.
const never = "never"

// none is what --quota says for a key that has no quotas but those of its plan. An empty one is
// an error, for the same reason.
const none = "none"

// settings are what flags say of a key, for mint and for update.
type settings struct {
	owner, plan, notBefore, expires string
	scopes, limits, quotas          []string
	networks, meta                  []string
}

func (s *settings) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.owner, "owner", "", "whose key it is")
	f.StringVar(&s.plan, "plan", "", "plan of the owner")
	f.StringArrayVar(&s.scopes, "scope", nil, "scope of the key (repeat for more)")
	f.StringArrayVar(&s.limits, "limit", nil, "limit in the place of those of the plan, as `NAME=REQUESTS/PERIOD[:BURST]`,\nsuch as minute=1000/60s (repeat for more)")
	quotaFlag(c, &s.quotas)
	f.StringArrayVar(&s.networks, "network", nil, "network, as `CIDR|ADDRESS`, that the key may be used from (repeat for more)")
	f.StringArrayVar(&s.meta, "meta", nil, "anything else, as `NAME=VALUE` (repeat for more)")
	f.StringVar(&s.notBefore, "not-before", "", "valid from `TIME` on, in RFC 3339 or from now, such as 12h or 7d")
	expiresFlag(c, &s.expires)
}

func quotaFlag(c *cobra.Command, quotas *[]string) {
	c.Flags().StringArrayVar(quotas, "quota", nil, "quota in the place of that of the plan with its name, as `[NAME=]REQUESTS/PERIOD[:soft]`,\nsuch as 20000/month (repeat for more), or none")
}

func expiresFlag(c *cobra.Command, expires *string) {
	c.Flags().StringVar(expires, "expires", never, "valid until `TIME`, in RFC 3339 or from now, such as 12h or 90d, or never")
}

func notBeforeOf(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := moment(text, now)
	if err != nil {
		return t, usagef("--not-before %q is not a time: %w", text, err)
	}
	return t, nil
}

func expiresOf(text string, now time.Time) (time.Time, error) {
	switch text {
	case never:
		return time.Time{}, nil
	case "":
		return time.Time{}, usagef("--expires is empty: use --expires never for a key without an end")
	}
	t, err := moment(text, now)
	if err != nil {
		return t, usagef("--expires %q is not a time: %w", text, err)
	}
	if !t.After(now) {
		return t, usagef("--expires %q has passed: use admit keys revoke to end a key", text)
	}
	return t, nil
}

func limitsOf(texts []string) ([]admit.Limit, error) {
	limits, err := keyinput.ParseLimits(texts)
	if err != nil {
		return nil, usagef("--limit %s: %w", quoted(texts), err)
	}
	return limits, nil
}

func quotasOf(texts []string) ([]admit.Quota, error) {
	switch {
	case len(texts) == 1 && texts[0] == none:
		return nil, nil
	case slices.Contains(texts, ""):
		return nil, usagef("--quota is empty: use --quota none for a key without quotas of its own")
	}
	quotas, err := keyinput.ParseQuotas(texts)
	if err != nil {
		return nil, usagef("--quota %s: %w", quoted(texts), err)
	}
	return quotas, nil
}

func networksOf(texts []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, text := range texts {
		n, err := keyinput.ParseNetwork(text)
		if err != nil {
			return nil, usagef("--network %q: %w", text, err)
		}
		networks = append(networks, n)
	}
	return networks, nil
}

func scopesOf(texts []string) ([]string, error) {
	for _, text := range texts {
		if err := keyinput.CheckScopes([]string{text}); err != nil {
			return nil, usagef("--scope %q is not a scope: %w", text, err)
		}
	}
	return texts, nil
}

// metaOf returns names and values.
func metaOf(texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	meta := map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("--meta %q is not NAME=VALUE", text)
		}
		if _, double := meta[name]; double {
			return nil, usagef("--meta %q is there twice", name)
		}
		meta[name] = value
	}
	return meta, nil
}

func quoted(texts []string) string {
	var list []string
	for _, text := range texts {
		list = append(list, fmt.Sprintf("%q", text))
	}
	return strings.Join(list, ", ")
}

// check refuses a key that no store should have, as a fault of the command line.
func check(k *admit.Key) error {
	if err := keyinput.CheckTexts(k); err != nil {
		return usageError{err}
	}
	return checkTimes(k)
}

func checkTimes(k *admit.Key) error {
	if err := keyinput.CheckTimes(k); err != nil {
		return usageError{err}
	}
	return nil
}

// moment reads a time in RFC 3339, or one from now.
func moment(s string, now time.Time) (time.Time, error) {
	if d, ok := keyinput.ParseSpan(s); ok {
		return now.UTC().Truncate(time.Second).Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, errors.New("it is neither in RFC 3339, such as 2030-01-02T15:04:05Z, nor from now, such as 12h or up to 36500d, and not negative")
	}
	return t.UTC(), nil
}
