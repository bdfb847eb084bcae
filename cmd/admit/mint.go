package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/mint"
	"github.com/admit-go/admit/sqlkeys"
)

func mintCommand(o *options) *cobra.Command {
	var set settings
	var id, prefix string
	c := &cobra.Command{
		Use:   "mint",
		Short: "Create a key and print its token",
		Long: `Create a key and print its token to standard output. The token is shown only once, since
only its digest is kept. Everything else goes to standard error. A key file that does not
exist is created.`,
		Example: `  admit keys mint --keys keys.json --owner ACME --plan pro --prefix acme_live
  admit keys mint --owner ACME --scope orders:read --scope orders:write --expires 90d
  admit keys mint --owner ACME --network 192.0.2.0/24 --limit minute=1000/60s --quota 20000/month
  admit keys mint --owner ACME | wl-copy`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			key, err := set.key(time.Now())
			if err != nil {
				return err
			}
			if err := name(key, id); err != nil {
				return err
			}
			token, digest, err := newToken(prefix, key)
			if err != nil {
				return err
			}
			return o.withNow(c, func(ctx context.Context, s store, now time.Time) error {
				if err := set.times(key, now); err != nil {
					return err
				}
				if err := s.Insert(ctx, digest, key); err != nil {
					return about(key.ID, err)
				}
				fmt.Fprintf(c.ErrOrStderr(), "minted %s; the token is shown only once\n", describe(key))
				return o.printToken(c, s, key, digest, token)
			})
		},
	}
	idFlag(c, &id)
	prefixFlag(c, &prefix, "key", "")
	set.flags(c)
	return c
}

// key returns the key that the flags describe, without an id.
func (s *settings) key(now time.Time) (*admit.Key, error) {
	k := &admit.Key{Owner: s.owner, Plan: s.plan}
	var faults [6]error
	k.Scopes, faults[0] = scopesOf(s.scopes)
	k.Limits, faults[1] = limitsOf(s.limits)
	k.Networks, faults[2] = networksOf(s.networks)
	k.Quotas, faults[5] = quotasOf(s.quotas)
	faults[3] = s.times(k, now)
	k.Meta, faults[4] = metaOf(s.meta)
	if err := errors.Join(faults[:]...); err != nil {
		return nil, err
	}
	if k.Meta["hint"] != "" {
		return nil, usagef("--meta hint: the hint comes from the token")
	}
	return k, check(k)
}

// times sets the times of a key, which flags may give as durations from now.
func (s *settings) times(k *admit.Key, now time.Time) error {
	var early, late error
	k.NotBefore, early = notBeforeOf(s.notBefore, now)
	k.ExpiresAt, late = expiresOf(s.expires, now)
	return errors.Join(early, late)
}

func idFlag(c *cobra.Command, id *string) {
	c.Flags().StringVar(id, "id", "", "`ID` of the key (default: a random one)")
}

func prefixFlag(c *cobra.Command, prefix *string, otherwise, help string) {
	c.Flags().StringVar(prefix, "prefix", otherwise, "`PREFIX` of the token: 1 to 32 characters of a-z, 0-9 and _"+help)
}

// name sets the id of a key, and checks the key.
func name(k *admit.Key, id string) error {
	if k.ID = id; id == "" {
		k.ID = randomID()
	}
	return check(k)
}

func randomID() string { return "k-" + strings.ToLower(rand.Text()[:12]) }

// newToken mints a token for a key, and stores its hint in the key.
func newToken(prefix string, k *admit.Key) (string, admit.Digest, error) {
	if err := mint.CheckPrefix(prefix); err != nil {
		return "", admit.Digest{}, usagef("--prefix: %w", err)
	}
	token, d, hint := admit.Mint(prefix)
	if k.Meta == nil {
		k.Meta = map[string]string{}
	}
	k.Meta["hint"] = hint
	return token, d, nil
}

// printToken prints a token, which cannot be shown again. If that fails, it revokes the key,
// since nobody has the whole token.
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
		return fmt.Errorf("the token of %s could not be printed, and the key could not be revoked: %w", clean(key.ID), errors.Join(err, revoked))
	}
	return fmt.Errorf("the token of %s could not be printed, so the key is revoked: %w", clean(key.ID), err)
}
