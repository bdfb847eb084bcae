package main

import (
	"github.com/spf13/cobra"
)

func quotasCommand() *cobra.Command {
	var o options
	quotas := &cobra.Command{
		Use:   "quotas",
		Short: "Set the quotas of accounts, and show what is used of them",
		Long: `Set the quotas of accounts, and show what is used of them. An account is the owner of keys, or the ID of a key that has
no owner, as in a service without QuotasConfig.Account: all of its keys use up the same
quotas. --keys and ADMIT_KEYS are as for admit keys.`,
		Args: usage(cobra.NoArgs),
		RunE: needsCommand,
	}
	o.flags(quotas)
	quotas.AddCommand(setQuotasCommand(&o), showQuotasCommand(&o), quotasSchemaCommand())
	return quotas
}
