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

// openKeys opens the key file. If there is none, it mints demo keys, writes their
// digests to the file, and returns the tokens: nothing can show them again, so a later
// start has none to show.
func openKeys(path, tokenFile string) (*admit.KeyFile, []namedToken, error) {
	var tokens []namedToken
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		keys := admit.KeyMap{}
		for _, k := range []admit.Key{
			{ID: "free", Owner: "hobbyist", Plan: "free"},
			{ID: "pro", Owner: "broker", Plan: "pro"}, // who has the quota for both keys
			{ID: "trader", Owner: "broker", Plan: "pro", Scopes: []string{"orders:write"}},
		} {
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
