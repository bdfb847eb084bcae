package main

import (
	"github.com/spf13/cobra"
)

func quotasCommand() *cobra.Command {
	var o options
	quotas := &cobra.Command{
		Use:   "quotas",
		Short: "Set the quotas of accounts, and show their usage",
		Long: `Set the quotas of accounts, and show their usage.

An account is the owner of keys, or the ID of a key that has no owner, as in a service
without QuotasConfig.Account. All keys of an account share its quotas. --keys and
ADMIT_KEYS are as in admit keys.`,
		Args: usage(cobra.NoArgs),
		RunE: needsCommand,
	}
	o.flags(quotas)
	quotas.AddCommand(setQuotasCommand(&o), showQuotasCommand(&o), quotasSchemaCommand())
	return quotas
}
