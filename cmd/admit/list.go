package main

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit/sqlkeys"
)

func listCommand(o *options) *cobra.Command {
	var owner string
	c := &cobra.Command{
		Use:     "list",
		Short:   "List keys",
		Example: "  admit keys list --owner ACME\n  admit keys list --json | jq -r 'select(.state == \"valid\") | .id'",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c, func(ctx context.Context, s store) error {
				var unread []error // a row that cannot be read does not hide the others
				records := readable(s.List(ctx, owner), &unread)
				var err error
				if o.json {
					err = printLines(c.OutOrStdout(), records)
				} else {
					err = printTable(c.OutOrStdout(), records, &unread)
				}
				return errors.Join(append(unread, unlessGone(err))...)
			})
		},
	}
	c.Flags().StringVar(&owner, "owner", "", "list only the keys of `OWNER`")
	return c
}

// readable yields the records that could be read, and keeps the errors: the first twenty, and
// the number of the rest.
func readable(all iter.Seq2[*sqlkeys.Record, error], unread *[]error) iter.Seq[*sqlkeys.Record] {
	const most = 20
	return func(yield func(*sqlkeys.Record) bool) {
		more := 0
		for r, err := range all {
			switch {
			case err == nil:
				if !yield(r) {
					return
				}
			case len(*unread) < most:
				*unread = append(*unread, err)
			default:
				more++
			}
		}
		if more > 0 {
			*unread = append(*unread, fmt.Errorf("%d more cannot be read", more))
		}
	}
}

func showCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show a key",
		Example: "  admit keys show k-7fjq2m4zt5ab",
		Args:    one("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return o.withPatience(c, func(ctx context.Context, s store) error {
				r, err := s.Get(ctx, args[0])
				if err != nil {
					return about(args[0], err)
				}
				return o.printKey(c, r)
			})
		},
	}
}
