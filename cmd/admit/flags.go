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

// never is the --expires of a key that does not expire. An empty --expires is an error, so that
// an unset variable does not make a key last forever.
const never = "never"

// none is the --quota of a key that has only the quotas of its plan. An empty --quota is an
// error for the same reason.
const none = "none"

// settings are the flags of mint and update.
type settings struct {
	owner, plan, notBefore, expires string
	scopes, limits, quotas          []string
	networks, meta                  []string
}

func (s *settings) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.owner, "owner", "", "`OWNER` of the key, such as a customer")
	f.StringVar(&s.plan, "plan", "", "`PLAN` of the key")
	f.StringArrayVar(&s.scopes, "scope", nil, "`SCOPE` of the key (repeat for more)")
	f.StringArrayVar(&s.limits, "limit", nil, "rate limit of the key, instead of those of its plan, as\n`NAME=REQUESTS/PERIOD[:BURST]`, such as minute=1000/60s (repeat for more)")
	quotaFlag(c, &s.quotas)
	f.StringArrayVar(&s.networks, "network", nil, "network that the key may be used from, as `CIDR|ADDRESS` (repeat for more)")
	f.StringArrayVar(&s.meta, "meta", nil, "any other data, as `NAME=VALUE` (repeat for more)")
	f.StringVar(&s.notBefore, "not-before", "", "`TIME` from which the key is valid, in RFC 3339 or from now, such as 12h or 7d")
	expiresFlag(c, &s.expires)
}

func quotaFlag(c *cobra.Command, quotas *[]string) {
	c.Flags().StringArrayVar(quotas, "quota", nil, "quota of the key, instead of that of its plan with the same name, as\n`[NAME=]REQUESTS/PERIOD[:soft]`, such as 20000/month (repeat for more), or none")
}

func expiresFlag(c *cobra.Command, expires *string) {
	c.Flags().StringVar(expires, "expires", never, "`TIME` at which the key expires, in RFC 3339 or from now, such as 12h or 90d, or never")
}

func notBeforeOf(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := moment(text, now)
	if err != nil {
		return t, usagef("--not-before %q: %w", text, err)
	}
	return t, nil
}

func expiresOf(text string, now time.Time) (time.Time, error) {
	switch text {
	case never:
		return time.Time{}, nil
	case "":
		return time.Time{}, usagef("--expires is empty: use --expires never for a key that does not expire")
	}
	t, err := moment(text, now)
	if err != nil {
		return t, usagef("--expires %q: %w", text, err)
	}
	if !t.After(now) {
		return t, usagef("--expires %q is not in the future: use admit keys revoke to end a key", text)
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
		return nil, usagef("--quota is empty: use --quota none for a key that has only the quotas of its plan")
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
			return nil, usagef("--scope %q: %w", text, err)
		}
	}
	return texts, nil
}

// metaOf returns the names and values of meta.
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
			return nil, usagef("--meta %q is given twice", name)
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

// check returns a usage error for a key that no store should have.
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

// moment parses a time in RFC 3339, or a duration from now.
func moment(s string, now time.Time) (time.Time, error) {
	if d, ok := keyinput.ParseSpan(s); ok {
		return now.UTC().Truncate(time.Second).Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, errors.New("give a time in RFC 3339, such as 2030-01-02T15:04:05Z, or a duration that is not negative, such as 12h or 7d (at most 36500d)")
	}
	return t.UTC(), nil
}
