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
		Short: "End keys",
		Long: `End keys, at once or at a time. They stay in the list, as revoked. A key that was
revoked before stays revoked since then.`,
		Example: `  admit keys revoke k-7fjq2m4zt5ab
  admit keys revoke acme-1 acme-2 --at 2030-01-01T00:00:00Z`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := moment(at, time.Now()); err != nil {
				return usagef("--at %q is not a time: %w", at, err)
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
				var failed []error // each id is tried: the ones after a wrong one have to end too
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
	c.Flags().StringVar(&at, "at", "0s", "when, in RFC 3339 or from now, such as 12h or 7d")
	return c
}
