package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit/sqlkeys"
)

func schemaCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "schema postgresql|sqlite",
		Short: "Print the statements that make the table",
		Example: `  admit keys schema postgresql | psql "$ADMIT_KEYS"
  admit keys schema sqlite | sqlite3 keys.db`,
		ValidArgs: []string{"postgresql", "sqlite"},
		Args:      usage(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(c *cobra.Command, args []string) error {
			dialect := sqlkeys.PostgreSQL
			if args[0] == "sqlite" {
				dialect = sqlkeys.SQLite
			}
			_, err := fmt.Fprint(c.OutOrStdout(), sqlkeys.Schema(dialect))
			return unlessGone(err)
		},
	}
	return c
}
