package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/admit-go/admit"
)

type namedToken struct{ name, token string }

// demoKeys are the keys of the first start.
func demoKeys() []admit.Key {
	return []admit.Key{
		{ID: "free", Owner: "hobbyist", Plan: "free"},
		{ID: "pro", Owner: "broker", Plan: "pro"}, // the two keys of the broker share one quota
		{ID: "trader", Owner: "broker", Plan: "pro", Scopes: []string{"orders:write"}},
	}
}

// openKeys opens the key file. If there is none, it mints the demo keys, writes their
// digests to the file, and returns their tokens. Nothing can show a token again, so a later
// start returns none.
func openKeys(path, tokenFile string) (*admit.KeyFile, []namedToken, error) {
	var tokens []namedToken
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		keys := admit.KeyMap{}
		for _, k := range demoKeys() {
			token, digest, hint := admit.Mint("demo_" + k.ID)
			k.Meta = map[string]string{"hint": hint}
			keys[digest] = &k
			tokens = append(tokens, namedToken{k.ID, token})
		}
		if err := writeTokens(tokenFile, tokens); err != nil {
			return nil, nil, err
		}
		if err := admit.WriteKeyFile(path, keys); err != nil {
			return nil, nil, err
		}
	}
	keys, err := admit.OpenKeyFile(path)
	return keys, tokens, err
}

// writeTokens writes one token to a line, as "name token", if there is a file to write.
func writeTokens(path string, tokens []namedToken) error {
	if path == "" {
		return nil
	}
	var b strings.Builder
	for _, t := range tokens {
		fmt.Fprintln(&b, t.name, t.token)
	}
	return os.WriteFile(path, []byte(b.String()), 0o600)
}
