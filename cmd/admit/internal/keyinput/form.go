// Package keyinput parses the parts of a key in flags and in imported files.
package keyinput

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/keyform"
)

// LimitForm describes the form of a limit.
const LimitForm = "NAME=REQUESTS/PERIOD[:BURST], such as minute=1000/60s or day=50000/1d:2000"

// ParseLimits parses limits, and checks them as the Limiter of a service does. Errors repeat at
// most the name of a limit, and only if the rest has the right form.
func ParseLimits(texts []string) ([]admit.Limit, error) {
	var limits []admit.Limit
	for _, text := range texts {
		l, ok := parseLimit(text)
		if !ok {
			return nil, errors.New("a limit is " + LimitForm)
		}
		limits = append(limits, l)
	}
	return limits, CheckLimits(limits)
}

// CheckLimits is like admit.CompleteLimits, for a list that may be empty.
func CheckLimits(limits []admit.Limit) error {
	if len(limits) == 0 {
		return nil
	}
	_, err := admit.CompleteLimits(limits)
	return oneLine(err)
}

// oneLine joins the lines of a configuration error, without the prefix of each: the command
// adds its own.
func oneLine(err error) error {
	if err == nil {
		return nil
	}
	var faults []string
	for _, line := range strings.Split(err.Error(), "\n") {
		faults = append(faults, strings.TrimPrefix(line, "admit: "))
	}
	return errors.New(strings.Join(faults, "; "))
}

func parseLimit(text string) (admit.Limit, bool) {
	at := strings.LastIndexByte(text, '=') // a name may have one, the rest has none
	if at < 1 {
		return admit.Limit{}, false
	}
	requests, rest, ok := strings.Cut(text[at+1:], "/")
	if !ok {
		return admit.Limit{}, false
	}
	period, burst, bursts := strings.Cut(rest, ":")
	l := admit.Limit{Name: text[:at]}
	if l.Requests, ok = parseCount(requests); !ok {
		return admit.Limit{}, false
	}
	if l.Per, ok = ParseSpan(period); !ok || l.Per == 0 {
		return admit.Limit{}, false
	}
	if bursts {
		if l.Burst, ok = parseCount(burst); !ok {
			return admit.Limit{}, false
		}
	}
	return l, true
}

// parseCount parses a number of only digits, from 1 to the largest 32-bit int.
func parseCount(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil && n > 0
}

// ParseSpan parses a duration that is not negative, such as 90s, 12h or 7d. The number of days
// is whole; a day has 24 hours.
func ParseSpan(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		const most = 36500
		n, err := strconv.ParseUint(days, 10, 32)
		return time.Duration(n) * 24 * time.Hour, err == nil && n <= most
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}

// FormatLimit formats a limit for ParseLimits. The default name is the period.
func FormatLimit(l admit.Limit) string {
	if l.Name == "" {
		l.Name = strings.ReplaceAll(l.Per.String(), "µ", "u")
	}
	s := l.Name + "=" + strconv.Itoa(l.Requests) + "/" + keyform.FormatPer(l.Per)
	if l.Burst != 0 && l.Burst != l.Requests {
		s += ":" + strconv.Itoa(l.Burst)
	}
	return s
}

// QuotaForm describes the form of a quota.
const QuotaForm = "[NAME=]REQUESTS/PERIOD[:soft], such as 20000/month or reports=500/day:soft; a PERIOD is day, week or month"

// ParseQuotas parses quotas, and checks them as the Plans of a service do. Errors repeat at most
// the name of a quota, and only if the rest has the right form.
func ParseQuotas(texts []string) ([]admit.Quota, error) {
	var quotas []admit.Quota
	for _, text := range texts {
		q, ok := parseQuota(text)
		if !ok {
			return nil, errors.New("a quota is " + QuotaForm)
		}
		quotas = append(quotas, q)
	}
	return quotas, CheckQuotas(quotas)
}

// CheckQuotas returns the error of admit.CompleteQuotas.
func CheckQuotas(quotas []admit.Quota) error {
	_, err := admit.CompleteQuotas(quotas)
	return oneLine(err)
}

func parseQuota(text string) (admit.Quota, bool) {
	at := strings.LastIndexByte(text, '=') // as in a limit
	if at == 0 {
		return admit.Quota{}, false
	}
	requests, rest, ok := strings.Cut(text[at+1:], "/")
	if !ok {
		return admit.Quota{}, false
	}
	period, soft, softly := strings.Cut(rest, ":")
	q := admit.Quota{Name: text[:max(at, 0)], Soft: softly}
	if softly && soft != "soft" || q.Every.UnmarshalText([]byte(period)) != nil {
		return admit.Quota{}, false
	}
	n, err := strconv.ParseUint(requests, 10, 63) // only digits
	q.Requests = int64(n)
	return q, err == nil
}

// FormatQuota formats a quota for ParseQuotas, without a name that is the same as the period.
func FormatQuota(q admit.Quota) string {
	s := strconv.FormatInt(q.Requests, 10) + "/" + q.Every.String()
	if q.Name != "" && q.Name != q.Every.String() {
		s = q.Name + "=" + s
	}
	if q.Soft {
		s += ":soft"
	}
	return s
}

// errNetwork does not repeat the text, which may be a token in the wrong column.
var errNetwork = errors.New("a network is a CIDR block, such as 192.0.2.0/24 or 2001:db8::/32, or a single address")

// ParseNetwork parses a network, or a single address as a network of one. It rejects host bits:
// either they or the length would be a mistake. An IPv4 address in the form of IPv6 becomes the
// IPv4 address.
func ParseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errNetwork
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errors.New("write a network of IPv4 addresses as IPv4, such as 192.0.2.0/24")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("the network %s has host bits: write %s, or the address without a length", p, p.Masked())
	}
	return p, nil
}

// CheckScopes rejects what admit.RequireScopes does not accept. It does not repeat the scope,
// for the same reason as errNetwork.
func CheckScopes(scopes []string) error {
	for _, scope := range scopes {
		if strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return errors.New("a scope has only printable ASCII characters other than space, quote and backslash; give each scope separately")
		}
		if scope == "" {
			return errors.New("a scope is empty")
		}
	}
	return nil
}

// These bounds are well below what the columns and indexes of a database can store.
const (
	maxID   = 256
	maxName = 1024 // of owner and plan
	maxText = 64 << 10
)

// CheckTexts rejects an id, owner, plan or meta that a store cannot keep, and an id that nobody
// could type in a command.
func CheckTexts(k *admit.Key) error {
	var faults []error
	check := func(name, text string, most int) {
		switch {
		case !utf8.ValidString(text):
			faults = append(faults, errors.New(name+" is not valid UTF-8"))
		case strings.ContainsRune(text, 0):
			faults = append(faults, errors.New(name+" has a NUL character"))
		case len(text) > most:
			faults = append(faults, fmt.Errorf("%s is longer than %d bytes", name, most))
		}
	}
	check("the id", k.ID, maxID)
	if strings.ContainsFunc(k.ID, Unprintable) {
		faults = append(faults, errors.New("the id has characters that cannot be printed"))
	}
	check("the owner", k.Owner, maxName)
	check("the plan", k.Plan, maxName)
	for name, value := range k.Meta {
		check("a name in meta", name, maxName)
		check("a value in meta", value, maxText)
		if name == "" {
			faults = append(faults, errors.New("a value in meta has no name"))
		}
	}
	return errors.Join(faults...)
}

// CheckTimes rejects a key that would never be valid, and years that a key file cannot have.
func CheckTimes(k *admit.Key) error {
	for _, t := range []time.Time{k.NotBefore, k.ExpiresAt, k.RevokedAt} {
		if year := t.UTC().Year(); year < 1 || year > 9999 {
			return errors.New("a time is outside the years 1 to 9999")
		}
	}
	if !k.NotBefore.IsZero() && !k.ExpiresAt.IsZero() && !k.NotBefore.Before(k.ExpiresAt) {
		return errors.New("the key would expire before it becomes valid")
	}
	return nil
}

// Unprintable reports whether a character must not reach a terminal: control characters, line
// separators, and characters that reverse the order of a line (UAX #9, §2).
func Unprintable(r rune) bool {
	switch {
	case unicode.IsControl(r), r == 0x2028, r == 0x2029:
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
		return true
	default:
		return false
	}
}
