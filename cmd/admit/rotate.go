package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/mint"
	"github.com/admit-go/admit/sqlkeys"
)

func rotateCommand(o *options) *cobra.Command {
	var id, prefix, expires, overlap string
	c := &cobra.Command{
		Use:   "rotate ID",
		Short: "Create a key that replaces another, and print its token",
		Long: `Create a key with the settings of another, and print its token as mint does. Both keys are
valid during the overlap; then the old key expires. The expiry of the old key is not
copied: the new key expires only with --expires. If the old key is not valid yet, the new
key becomes valid at the same time, and the overlap begins then.`,
		Example: `  admit keys rotate k-7fjq2m4zt5ab --overlap 7d
  admit keys rotate acme-1 --id acme-2 --overlap 0s`,
		Args: one("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := moment(overlap, time.Now()); err != nil { // before a store is opened
				return usagef("--overlap %q: %w", overlap, err)
			}
			if _, err := expiresOf(expires, time.Now()); err != nil {
				return err
			}
			return o.withNow(c, func(ctx context.Context, s store, now time.Time) error {
				expiresAt, err := expiresOf(expires, now)
				if err != nil {
					return err
				}
				old, err := s.Get(ctx, args[0])
				if err != nil {
					return about(args[0], err)
				}
				next := successor(&old.Key, now)
				next.ExpiresAt = expiresAt
				if err := name(next, id); err != nil {
					return err
				}
				begins := now
				if next.NotBefore.After(now) {
					begins = next.NotBefore
				}
				until, err := moment(overlap, begins)
				if err != nil {
					return usagef("--overlap %q: %w", overlap, err)
				}
				if prefix == "" {
					prefix = prefixOf(old.Meta["hint"], "key")
				}
				token, digest, err := newToken(prefix, next)
				if err != nil {
					return err
				}
				// Stores reject a key that expires before it becomes valid, so it is revoked
				// instead.
				unborn := !old.NotBefore.IsZero() && !until.After(old.NotBefore)
				if unborn {
					until = old.NotBefore.Add(time.Second)
				}
				if err := s.Rotate(ctx, old.ID, until, digest, next); errors.Is(err, sqlkeys.ErrExists) {
					return about(next.ID, err)
				} else if err != nil {
					return about(old.ID, err)
				}
				fmt.Fprintf(c.ErrOrStderr(), "minted %s; the token is shown only once\n", describe(next))
				var failed error
				if unborn {
					_, failed = s.Revoke(ctx, old.ID, time.Time{})
					failed = about(old.ID, failed)
				}
				if failed == nil {
					fmt.Fprintln(c.ErrOrStderr(), fate(&old.Key, until, unborn))
				}
				return errors.Join(failed, o.printToken(c, s, next, digest, token))
			})
		},
	}
	idFlag(c, &id)
	prefixFlag(c, &prefix, "", "\n(default: the prefix of the old key, or key if its hint does not have it)")
	expiresFlag(c, &expires)
	c.Flags().StringVar(&overlap, "overlap", "24h", "`TIME` for which both keys are valid: a duration, such as 30m or 7d,\nor the end in RFC 3339")
	return c
}

// fate returns what happens to the old key.
func fate(old *admit.Key, until time.Time, unborn bool) string {
	if unborn {
		return "the key " + clean(old.ID) + " is revoked, since it would have expired before it became valid"
	}
	if !old.ExpiresAt.IsZero() && old.ExpiresAt.Before(until) {
		until = old.ExpiresAt
	}
	return "the key " + clean(old.ID) + " is valid until " + date(until)
}

// successor returns a copy of a key without its id, and without the times at which it expires
// or is revoked. newToken replaces the hint.
func successor(old *admit.Key, now time.Time) *admit.Key {
	next := *old
	next.ID, next.ExpiresAt, next.RevokedAt = "", time.Time{}, time.Time{}
	if !next.NotBefore.After(now) {
		next.NotBefore = time.Time{}
	}
	next.Scopes, next.Limits, next.Quotas = slices.Clone(old.Scopes), slices.Clone(old.Limits), slices.Clone(old.Quotas)
	next.Networks, next.Meta = slices.Clone(old.Networks), maps.Clone(old.Meta)
	return &next
}

// prefixOf returns the prefix in a hint, such as acme in acme_1x3f..., or else otherwise.
func prefixOf(hint, otherwise string) string {
	const tail = len("_1x3f...")
	if n := len(hint) - tail; n > 0 && hint[n] == '_' && strings.HasSuffix(hint, "...") && mint.CheckPrefix(hint[:n]) == nil {
		return hint[:n]
	}
	return otherwise
}
