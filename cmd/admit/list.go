package main

import (
	"context"

	"github.com/spf13/cobra"
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
				if !o.json {
					return unlessGone(printTable(c.OutOrStdout(), s.List(ctx, owner)))
				}
				for r, err := range s.List(ctx, owner) {
					if err == nil {
						err = printJSON(c.OutOrStdout(), r, "")
					}
					if err != nil {
						return unlessGone(err)
					}
				}
				return nil
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
