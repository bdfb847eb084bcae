package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/mint"
	"github.com/admit-go/admit/sqlkeys"
)

// patience bounds what one command waits for a database or a lock.
const patience = 30 * time.Second

func keysCommand() *cobra.Command {
	var o options
	keys := &cobra.Command{
		Use:   "keys",
		Short: "Mint, list, show, rotate and revoke keys",
		Long: `Mint, list, show, rotate and revoke keys.

The keys are where --keys says, or else the variable ADMIT_KEYS: the path of a key file,
postgres://USER@HOST/DATABASE, or sqlite:PATH. A password is better given in the
variable, or in PGPASSWORD, than in an argument that all users of the machine can see.
A service sees a change of a key file within two seconds, and of a database, with
sqlkeys.Watch, within one.`,
		Args: usage(cobra.NoArgs),
		RunE: needsCommand,
	}
	keys.PersistentFlags().StringVar(&o.keys, "keys", "", "key `FILE or URL` of a database (default $ADMIT_KEYS)")
	keys.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON, one object to a line")
	keys.AddCommand(mintCommand(&o), listCommand(&o), showCommand(&o), rotateCommand(&o), revokeCommand(&o), schemaCommand())
	return keys
}

// options are those of all commands.
type options struct {
	keys string
	json bool
}

// with opens the store for one command.
func (o *options) with(c *cobra.Command, do func(ctx context.Context, s store) error) (err error) {
	where := o.keys
	if where == "" {
		where = os.Getenv("ADMIT_KEYS")
	}
	if where == "" {
		return usagef("no keys are named: use --keys or ADMIT_KEYS")
	}
	s, err := openStore(where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(c.Context(), s)
}

func mintCommand(o *options) *cobra.Command {
	var k newKey
	c := &cobra.Command{
		Use:   "mint",
		Short: "Make a key, and print its token",
		Long: `Make a key, and print its token on standard output: once, as only its digest is
kept. Everything else goes to standard error. A key file that does not exist is made.`,
		Example: `  admit keys mint --keys keys.json --owner ACME --plan pro --prefix acme_live
  admit keys mint --owner ACME --scope orders:read --scope orders:write --expires 90d
  admit keys mint --owner ACME | wl-copy`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			now := time.Now()
			key, err := k.key(now)
			if err != nil {
				return err
			}
			token, digest := k.mint(key)
			return o.with(c, func(ctx context.Context, s store) error {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				if err := s.Insert(ctx, digest, key); err != nil {
					return err
				}
				fmt.Fprintf(c.ErrOrStderr(), "minted %s; the token is shown this once\n", describe(key))
				return o.printToken(c, s, key, digest, token)
			})
		},
	}
	k.flags(c, "key")
	c.Flags().StringVar(&k.owner, "owner", "", "whose key it is")
	c.Flags().StringVar(&k.plan, "plan", "", "plan of the owner")
	c.Flags().StringArrayVar(&k.scopes, "scope", nil, "scope of the key (repeat for more)")
	c.Flags().StringToStringVar(&k.meta, "meta", nil, "anything else, as `NAME=VALUE`")
	c.Flags().StringVar(&k.notBefore, "not-before", "", "valid from `TIME` on, in RFC 3339 or from now, such as 12h or 7d")
	return c
}

func rotateCommand(o *options) *cobra.Command {
	var k newKey
	var overlap string
	c := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make a key that takes the place of another, and print its token",
		Long: `Make a key with the owner, plan, scopes and meta of another, and print its token as
mint does. Both are valid for the time of the overlap; then the old one expires. If that
one has an expiry, the new one has none unless --expires gives it one.`,
		Example: `  admit keys rotate k-7fjq2m4zt5ab --overlap 7d
  admit keys rotate acme-1 --id acme-2 --overlap 0s`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			now := time.Now()
			until, err := moment(overlap, now)
			if err != nil || until.IsZero() {
				return usagef("--overlap %q is not a time: %w", overlap, err)
			}
			return o.with(c, func(ctx context.Context, s store) error {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				old, err := s.Get(ctx, args[0])
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				if !c.Flags().Changed("prefix") {
					k.prefix = prefixOf(old.Meta["hint"], k.prefix)
				}
				next, err := k.key(now)
				if err != nil {
					return err
				}
				next.Owner, next.Plan, next.Scopes, next.Meta = old.Owner, old.Plan, old.Scopes, maps.Clone(old.Meta)
				token, digest := k.mint(next)
				if err := s.Rotate(ctx, old.ID, until, digest, next); err != nil {
					return fmt.Errorf("%s: %w", old.ID, err)
				}
				if !old.ExpiresAt.IsZero() && old.ExpiresAt.Before(until) {
					until = old.ExpiresAt
				}
				fmt.Fprintf(c.ErrOrStderr(), "minted %s; the token is shown this once\n%s is valid until %s\n",
					describe(next), old.ID, until.UTC().Format(time.RFC3339))
				return o.printToken(c, s, next, digest, token)
			})
		},
	}
	k.flags(c, "key")
	c.Flags().StringVar(&overlap, "overlap", "24h", "for how long both are valid, such as 30m or 7d, or until a time in RFC 3339")
	return c
}

func revokeCommand(o *options) *cobra.Command {
	var at string
	c := &cobra.Command{
		Use:   "revoke ID...",
		Short: "End keys",
		Long: `End keys, at once or at a time. They stay in the list, as revoked. A key that was
revoked before stays revoked since then.`,
		Example: `  admit keys revoke k-7fjq2m4zt5ab
  admit keys revoke acme-1 acme-2 --at 2030-01-01T00:00:00Z`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			when, err := moment(at, time.Now())
			if err != nil {
				return usagef("--at %q is not a time: %w", at, err)
			}
			return o.with(c, func(ctx context.Context, s store) error {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				var failed []error // each id is tried: the ones after a wrong one have to end too
				for _, id := range args {
					r, err := s.Revoke(ctx, id, when)
					if err != nil {
						failed = append(failed, fmt.Errorf("%s: %w", id, err))
						continue
					}
					fmt.Fprintf(c.ErrOrStderr(), "%s is revoked as of %s\n", describe(&r.Key), r.RevokedAt.UTC().Format(time.RFC3339))
					if o.json {
						failed = append(failed, printJSON(c.OutOrStdout(), r, ""))
					}
				}
				return errors.Join(failed...)
			})
		},
	}
	c.Flags().StringVar(&at, "at", "0s", "when, in RFC 3339 or from now, such as 12h or 7d")
	return c
}

func listCommand(o *options) *cobra.Command {
	var owner string
	c := &cobra.Command{
		Use:     "list",
		Short:   "List keys",
		Example: "  admit keys list --owner ACME\n  admit keys list --json | jq -r 'select(.state == \"valid\") | .id'",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c, func(ctx context.Context, s store) error {
				if o.json {
					for r, err := range s.List(ctx, owner) {
						if err != nil {
							return err
						}
						if err := printJSON(c.OutOrStdout(), r, ""); err != nil {
							return err
						}
					}
					return nil
				}
				return printTable(c.OutOrStdout(), s.List(ctx, owner))
			})
		},
	}
	c.Flags().StringVar(&owner, "owner", "", "of this owner alone")
	return c
}

func showCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show a key",
		Example: "  admit keys show k-7fjq2m4zt5ab",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return o.with(c, func(ctx context.Context, s store) error {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				r, err := s.Get(ctx, args[0])
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				if o.json {
					return printJSON(c.OutOrStdout(), r, "")
				}
				return printRecord(c.OutOrStdout(), r)
			})
		},
	}
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "schema postgresql|sqlite",
		Short:     "Print the statements that make the table",
		Example:   "  admit keys schema postgresql | psql \"$ADMIT_KEYS\"\n  admit keys schema sqlite | sqlite3 keys.db",
		ValidArgs: []string{"postgresql", "sqlite"},
		Args:      usage(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(c *cobra.Command, args []string) error {
			dialect := sqlkeys.PostgreSQL
			if args[0] == "sqlite" {
				dialect = sqlkeys.SQLite
			}
			_, err := fmt.Fprint(c.OutOrStdout(), sqlkeys.Schema(dialect))
			return err
		},
	}
}

// newKey is what flags say of a key to be.
type newKey struct {
	id, prefix, owner, plan, notBefore, expires string
	scopes                                      []string
	meta                                        map[string]string
}

func (k *newKey) flags(c *cobra.Command, prefix string) {
	c.Flags().StringVar(&k.id, "id", "", "name of the key (default: a random one)")
	c.Flags().StringVar(&k.prefix, "prefix", prefix, "what the token begins with: 1 to 32 of a-z 0-9 _")
	c.Flags().StringVar(&k.expires, "expires", "", "valid until `TIME`, in RFC 3339 or from now, such as 12h or 90d")
}

// key returns the key, or the fault of a flag.
func (k *newKey) key(now time.Time) (*admit.Key, error) {
	if err := mint.CheckPrefix(k.prefix); err != nil {
		return nil, usagef("--prefix: %w", err)
	}
	notBefore, err := moment(k.notBefore, now)
	if err != nil {
		return nil, usagef("--not-before %q is not a time: %w", k.notBefore, err)
	}
	expires, err := moment(k.expires, now)
	if err != nil {
		return nil, usagef("--expires %q is not a time: %w", k.expires, err)
	}
	if !expires.IsZero() && !expires.After(now) {
		return nil, usagef("--expires %q has passed", k.expires)
	}
	if !notBefore.IsZero() && !expires.IsZero() && !notBefore.Before(expires) {
		return nil, usagef("the key would expire before it is valid")
	}
	for _, scope := range k.scopes {
		if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return nil, usagef("%q is not a scope: it is printable ASCII without space, quote and backslash", scope)
		}
	}
	id := k.id
	if id == "" {
		id = "k-" + strings.ToLower(rand.Text()[:12])
	}
	return &admit.Key{
		ID: id, Owner: k.owner, Plan: k.plan, Scopes: slices.Clone(k.scopes), Meta: maps.Clone(k.meta),
		NotBefore: notBefore, ExpiresAt: expires,
	}, nil
}

// mint makes the token, and notes its hint in the key.
func (k *newKey) mint(key *admit.Key) (token string, d admit.Digest) {
	token, d, hint := admit.Mint(k.prefix)
	if key.Meta == nil {
		key.Meta = map[string]string{}
	}
	key.Meta["hint"] = hint
	return token, d
}

// prefixOf returns the prefix that a hint has, such as acme of acme_1x3f..., or another.
func prefixOf(hint, otherwise string) string {
	const tail = len("_1x3f...")
	if n := len(hint) - tail; n > 0 && hint[n] == '_' && strings.HasSuffix(hint, "...") {
		return hint[:n]
	}
	return otherwise
}

// moment reads a time in RFC 3339, or one from now. Empty is none.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	now = now.UTC().Truncate(time.Second)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if d, err := time.ParseDuration(days + "h"); err == nil && d >= 0 && d < 36500*time.Hour {
			return now.Add(24 * d), nil
		}
		return time.Time{}, errors.New("days are a number from 0 to 36500")
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return time.Time{}, errors.New("it is negative")
		}
		return now.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, errors.New("it is neither in RFC 3339, such as 2030-01-02T15:04:05Z, nor from now, such as 12h or 7d")
	}
	return t.UTC(), nil
}

func describe(k *admit.Key) string {
	if k.Owner == "" {
		return "the key " + k.ID
	}
	return "the key " + k.ID + " of " + k.Owner
}

// printToken prints what cannot be shown again. If that fails, nobody has the token, so
// nobody should: the key is revoked.
func (o *options) printToken(c *cobra.Command, s store, key *admit.Key, d admit.Digest, token string) error {
	var err error
	if o.json {
		err = printJSON(c.OutOrStdout(), &sqlkeys.Record{Key: *key, Digest: d}, token)
	} else {
		_, err = fmt.Fprintln(c.OutOrStdout(), token)
	}
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), patience)
	defer cancel()
	_, revoked := s.Revoke(ctx, key.ID, time.Time{})
	if revoked != nil {
		return fmt.Errorf("the token of %s could not be printed, and the key not be revoked: %w", key.ID, errors.Join(err, revoked))
	}
	return fmt.Errorf("the token of %s could not be printed, so the key is revoked: %w", key.ID, err)
}
