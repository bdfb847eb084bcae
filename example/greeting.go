package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/admit-go/admit"
)

// tour is a script for any POSIX shell and old versions of curl. Each comment lists the statuses
// that its commands return. It has no characters that zsh expands, since zsh runs comments that
// are pasted at its prompt as commands.
const tour = `
# 1. Without a key: 401 key_missing
curl -i %[1]s/v1/prices/btc-usd
# 2. With a key: 200, and what is left of the limits
curl -i %[1]s/v1/prices/btc-usd -H "X-API-Key: $FREE"
# 3. The free plan has no history: 402 plan_required. The pro plan has it: 200
curl -i %[1]s/v1/history/btc-usd -H "X-API-Key: $FREE"
curl -i %[1]s/v1/history/btc-usd -H "X-API-Key: $PRO"
# 4. An order needs the scope orders:write: 403 scope_required without it, 201 with it
curl -i %[1]s/v1/orders -H "Authorization: Bearer $PRO" -H 'Content-Type: application/json' -d '%[2]s'
curl -i %[1]s/v1/orders -H "Authorization: Bearer $TRADER" -H 'Content-Type: application/json' -d '%[2]s'
# 5. How much of the monthly quota is used: 200
curl -i %[1]s/v1/usage -H "X-API-Key: $FREE"
# 6. The free plan allows 5 requests a second: 200, then 429 rate_limited
curl -s -i "%[1]s/v1/prices/btc-usd?[1-20]" -H "X-API-Key: $FREE" | grep -i -e ^HTTP -e ^Retry-After
`

const demoOrder = `{"pair":"btc-usd","side":"buy","quantity":"0.5","client_id":"c1"}`

// greeting returns what the example prints when it starts: its address and, unless quiet is set,
// the tour. The lines before the tour set its variables: to the new tokens or, if there are none,
// to the tokens of keys that these lines mint.
func greeting(url, metrics, keyFile string, tokens []namedToken, quiet bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Open %s in a browser: it shows each route, limit and error of this service.\n", url)
	if quiet {
		return b.String()
	}
	fmt.Fprintln(&b, "Each request is a line of the log below. Ctrl-C stops the service.")
	if len(tokens) > 0 {
		fmt.Fprintf(&b, "\nThe demo keys are new. Their tokens are shown only now, since %s has just their digests.\n", keyFile)
		fmt.Fprint(&b, "Paste these lines into another terminal, all at once or one by one:\n\n")
		for _, t := range tokens {
			fmt.Fprintf(&b, "%s=%s\n", strings.ToUpper(t.name), t.token)
		}
	} else {
		fmt.Fprintf(&b, "\nThe tokens of the keys in %s cannot be shown again. The first lines mint new keys.\n", keyFile)
		fmt.Fprint(&b, "Paste these lines into another terminal, in a clone of admit, all at once or one by one:\n\n")
		for _, k := range demoKeys() {
			fmt.Fprintln(&b, mintLine(k, keyFile))
		}
		fmt.Fprintln(&b, "sleep 2") // the service looks at the file each second
	}
	fmt.Fprintf(&b, tour, url, demoOrder)
	if metrics != "" {
		fmt.Fprintf(&b, "# 7. Metrics for Prometheus\ncurl -s %s | grep ^admit_\n", metrics)
	}
	b.WriteByte('\n')
	return b.String()
}

// mintLine returns a shell command that adds a key like k to the file, and sets a variable to
// its token.
func mintLine(k admit.Key, keyFile string) string {
	if absolute, err := filepath.Abs(keyFile); err == nil {
		keyFile = absolute // the other terminal may be in another directory
	}
	line := fmt.Sprintf("%s=$(go run github.com/admit-go/admit/cmd/admit keys mint --keys '%s' --owner %s --plan %s",
		strings.ToUpper(k.ID), strings.ReplaceAll(keyFile, "'", `'\''`), k.Owner, k.Plan)
	for _, scope := range k.Scopes {
		line += " --scope " + scope
	}
	return line + ")"
}

// urlOf returns the URL of a listener for clients on this machine.
func urlOf(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d", tcp.Port)
	}
	return "http://" + addr.String()
}
