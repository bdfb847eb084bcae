package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlkeys"
)

func setQuotasCommand(o *options) *cobra.Command {
	var texts []string
	c := &cobra.Command{
		Use:   "set ACCOUNT",
		Short: "Set the quotas of the keys of an account",
		Long: `Set the quotas of each key of an account that has not expired and is not revoked, and
print each change. --quota replaces all quotas that a key has of its own: those that
override quotas of its plan with the same names, and those that its plan does not have.
--quota none removes them, so that the quotas of the plan apply.

The usage of the account does not change: a larger quota in mid-period adds the
difference. A rotated key keeps its quotas; a newly minted key needs --quota too. If a key
cannot be changed, the others are; the command can be run again.`,
		Example: `  admit quotas set ACME --quota 20000/month
  admit quotas set ACME --quota 20000/month:soft --quota reports=500/day
  admit quotas set ACME --quota none`,
		Args: one("ACCOUNT"),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("the account is empty: give the owner of keys, or the ID of a key without an owner")
			}
			if !c.Flags().Changed("quota") {
				return usagef("there is nothing to set: give --quota REQUESTS/PERIOD or --quota none")
			}
			quotas, err := quotasOf(texts)
			if err != nil {
				return err
			}
			return o.with(c, func(ctx context.Context, s store) error {
				return o.setQuotas(ctx, c, s, args[0], quotas)
			})
		},
	}
	quotaFlag(c, &texts)
	return c
}

// setQuotas changes one key after the other. Each has its own patience, since an account may
// have many.
func (o *options) setQuotas(ctx context.Context, c *cobra.Command, s store, account string, quotas []admit.Quota) error {
	now, ids, err := liveKeys(ctx, s, account)
	if len(ids) == 0 && err == nil {
		return noKeyError{account}
	}
	failed := []error{err}
	for _, id := range ids {
		var had []admit.Quota
		r, err := update(ctx, s, id, func(k *admit.Key) error {
			switch had = k.Quotas; {
			case !isLive(k, account, now):
				return sqlkeys.ErrNotValid
			case sameQuotas(had, quotas):
				return errNoChange
			}
			k.Quotas = slices.Clone(quotas)
			return nil
		})
		switch {
		case errors.Is(err, sqlkeys.ErrNotValid): // it has ended meanwhile
		case errors.Is(err, errNoChange):
			fmt.Fprintf(c.ErrOrStderr(), "the key %s already has %s\n", clean(id), ownQuotas(quotas))
		case err != nil:
			failed = append(failed, about(id, err))
		case o.json:
			failed = append(failed, unlessGone(printJSON(c.OutOrStdout(), r, "")))
		default:
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s had %s and now has %s\n", describe(&r.Key), ownQuotas(had), ownQuotas(quotas))
			failed = append(failed, unlessGone(err))
		}
	}
	return errors.Join(failed...)
}

// update calls the Update of a store with patience.
func update(ctx context.Context, s store, id string, change func(*admit.Key) error) (*sqlkeys.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.Update(ctx, id, change)
}

// liveKeys returns the ids of the keys of an account that have not ended, and the time by the
// clock of the store. A row that cannot be read does not hide the others; the error joins those
// of all such rows.
func liveKeys(ctx context.Context, s store, account string) (now time.Time, ids []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if now, err = s.Now(ctx); err != nil {
		return now, nil, err
	}
	var unread []error
	for r, err := range s.List(ctx, account) {
		switch {
		case errors.As(err, new(*admit.ConfigError)):
			unread = append(unread, err)
		case err != nil:
			return now, nil, err
		case isLive(&r.Key, account, now):
			ids = append(ids, r.ID)
		}
	}
	r, err := s.Get(ctx, account)
	switch {
	case errors.Is(err, admit.ErrKeyNotFound):
	case err != nil:
		unread = append(unread, about(account, err))
	case r.Owner == "" && isLive(&r.Key, account, now):
		ids = append(ids, r.ID)
	}
	return now, ids, errors.Join(unread...)
}

// isLive reports whether a key belongs to an account and has not ended.
func isLive(k *admit.Key, account string, now time.Time) bool {
	status := k.Status(now)
	return cmp.Or(k.Owner, k.ID) == account && (status == admit.KeyValid || status == admit.KeyEarly)
}

// sameQuotas compares quotas, with the default name for one that has none.
func sameQuotas(a, b []admit.Quota) bool {
	a, errA := admit.CompleteQuotas(a)
	b, errB := admit.CompleteQuotas(b)
	return errA == nil && errB == nil && slices.Equal(a, b)
}

func ownQuotas(quotas []admit.Quota) string {
	if len(quotas) == 0 {
		return "no quotas of its own"
	}
	return quotaList(quotas)
}

// noKeyError says that an account has no live keys.
type noKeyError struct{ account string }

func (e noKeyError) Error() string {
	return "the account " + clean(e.account) + " has no live keys: an account is the owner of keys, or the ID of a key without an owner"
}

// Unwrap makes the command exit with 3.
func (noKeyError) Unwrap() error { return admit.ErrKeyNotFound }
