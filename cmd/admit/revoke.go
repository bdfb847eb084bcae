package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func revokeCommand(o *options) *cobra.Command {
	var at string
	c := &cobra.Command{
		Use:   "revoke ID...",
		Short: "Revoke keys",
		Long: `Revoke keys, now or at a time. They stay in the list with the state revoked. A key that is
already revoked keeps the earlier time.`,
		Example: `  admit keys revoke k-7fjq2m4zt5ab
  admit keys revoke acme-1 acme-2 --at 2030-01-01T00:00:00Z`,
		Args: usage(func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("give at least one ID")
			}
			return nil
		}),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := moment(at, time.Now()); err != nil {
				return usagef("--at %q: %w", at, err)
			}
			return o.withPatience(c, func(ctx context.Context, s store) error {
				var when time.Time // the store's now
				if c.Flags().Changed("at") {
					now, err := s.Now(ctx)
					if err != nil {
						return err
					}
					when, _ = moment(at, now)
				}
				var failed []error // each id is tried, also those after a wrong one
				for _, id := range args {
					r, err := s.Revoke(ctx, id, when)
					if err != nil {
						failed = append(failed, about(id, err))
						continue
					}
					fmt.Fprintf(c.ErrOrStderr(), "%s is revoked as of %s\n", describe(&r.Key), date(r.RevokedAt))
					if o.json {
						failed = append(failed, unlessGone(printJSON(c.OutOrStdout(), r, "")))
					}
				}
				return errors.Join(failed...)
			})
		},
	}
	c.Flags().StringVar(&at, "at", "0s", "`TIME` in RFC 3339, or a duration from now, such as 12h or 7d (default now)")
	c.Flags().Lookup("at").DefValue = ""
	return c
}
