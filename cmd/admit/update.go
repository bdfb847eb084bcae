package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
)

func updateCommand(o *options) *cobra.Command {
	var set settings
	c := &cobra.Command{
		Use:   "update ID",
		Short: "Change the settings of a key",
		Long: `Change the settings that flags give, leave the others as they are, and print the changed
key. The token stays the same. --scope, --limit, --quota and --network replace the whole
list; --meta NAME=VALUE sets one name, and --meta NAME= removes it. An empty value clears
a setting: --plan "", --network "", --not-before "". To remove the expiry use --expires
never, and to remove the quotas of the key --quota none.

A revoked key stays revoked. An expired key becomes valid again with a later --expires.
Such a change of the state is printed to standard error.`,
		Example: `  admit keys update acme-1 --plan enterprise --limit minute=5000/60s
  admit keys update acme-1 --network 192.0.2.0/24 --network 2001:db8::1
  admit keys update acme-1 --expires never --meta contact=`,
		Args: one("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := set.change(c.Flags().Changed, time.Now()); err != nil { // before a store is opened
				return err
			}
			return o.withNow(c, func(ctx context.Context, s store, now time.Time) error {
				change, err := set.change(c.Flags().Changed, now)
				if err != nil {
					return err
				}
				var before admit.KeyStatus
				r, err := s.Update(ctx, args[0], func(k *admit.Key) error {
					before = k.Status(now)
					return change(k)
				})
				if err != nil {
					return about(args[0], err)
				}
				if after := r.Status(now); after != before {
					fmt.Fprintf(c.ErrOrStderr(), "%s was %s and is now %s\n", describe(&r.Key), before, after)
				} else if after == admit.KeyRevoked {
					fmt.Fprintf(c.ErrOrStderr(), "%s stays revoked\n", describe(&r.Key))
				}
				return o.printKey(c, r)
			})
		},
	}
	set.flags(c)
	c.Flags().Lookup("expires").DefValue = "" // without the flag the expiry does not change
	return c
}

// change returns a function that makes the change of the flags.
func (s *settings) change(changed func(flag string) bool, now time.Time) (func(*admit.Key) error, error) {
	var steps []func(*admit.Key)
	given := func(name string, step func(*admit.Key)) {
		if changed(name) {
			steps = append(steps, step)
		}
	}
	for _, list := range []*[]string{&s.scopes, &s.limits, &s.networks} {
		if len(*list) == 1 && (*list)[0] == "" {
			*list = nil
		}
	}
	next, err := s.key(now)
	if err != nil {
		return nil, err
	}
	given("owner", func(k *admit.Key) { k.Owner = next.Owner })
	given("plan", func(k *admit.Key) { k.Plan = next.Plan })
	given("scope", func(k *admit.Key) { k.Scopes = next.Scopes })
	given("limit", func(k *admit.Key) { k.Limits = next.Limits })
	given("quota", func(k *admit.Key) { k.Quotas = next.Quotas })
	given("network", func(k *admit.Key) { k.Networks = next.Networks })
	given("not-before", func(k *admit.Key) { k.NotBefore = next.NotBefore })
	given("expires", func(k *admit.Key) { k.ExpiresAt = next.ExpiresAt })
	given("meta", func(k *admit.Key) { k.Meta = merge(k.Meta, next.Meta) })
	if len(steps) == 0 {
		return nil, usagef("there is nothing to change: give a flag such as --plan")
	}
	return func(k *admit.Key) error {
		for _, step := range steps {
			step(k)
		}
		if changed("not-before") || changed("expires") {
			return checkTimes(k)
		}
		return nil
	}, nil
}

// merge returns meta with changes. An empty value removes a name.
func merge(meta, changes map[string]string) map[string]string {
	merged := maps.Clone(meta)
	if merged == nil {
		merged = map[string]string{}
	}
	for name, value := range changes {
		if merged[name] = value; value == "" {
			delete(merged, name)
		}
	}
	return merged
}
