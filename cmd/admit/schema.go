package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit/sqlkeys"
	"github.com/admit-go/admit/sqlquota"
)

var dialects = map[string]sqlkeys.Dialect{"postgresql": sqlkeys.PostgreSQL, "sqlite": sqlkeys.SQLite}

func schemaCommand() *cobra.Command {
	var from int
	c := &cobra.Command{
		Use:   "schema postgresql|sqlite",
		Short: "Print the statements that make the table, or bring an older one up",
		Long: `Print the statements that make the table admit_keys, or with --from those that bring
the table of an earlier version up, with the keys that it has, while services use it.
Version 1 is the table that has no columns networks, limits, quotas and former. What is
printed for PostgreSQL is one statement, which may run again; for SQLite it needs a
transaction.`,
		Example: `  admit keys schema postgresql | psql "$ADMIT_KEYS"
  admit keys schema postgresql --from 1 | psql "$ADMIT_KEYS"
  admit keys schema sqlite | sqlite3 keys.db
  (echo 'BEGIN IMMEDIATE;'; admit keys schema sqlite --from 1; echo 'COMMIT;') | sqlite3 -bail keys.db`,
		ValidArgs: slices.Sorted(maps.Keys(dialects)),
		Args:      usage(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(c *cobra.Command, args []string) error {
			dialect := dialects[args[0]]
			text := sqlkeys.Schema(dialect)
			if c.Flags().Changed("from") {
				if from != 1 {
					return usagef("--from %d: the one earlier version is 1", from)
				}
				text = sqlkeys.SchemaFrom(dialect, from)
			}
			_, err := fmt.Fprint(c.OutOrStdout(), text)
			return unlessGone(err)
		},
	}
	c.Flags().IntVar(&from, "from", 0, "`VERSION` of the table that is there")
	return c
}

func quotasSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema postgresql|sqlite",
		Short: "Print the statements that make the tables of package sqlquota",
		Example: `  admit quotas schema postgresql | psql "$ADMIT_QUOTAS"
  admit quotas schema sqlite | sqlite3 quotas.db`,
		ValidArgs: slices.Sorted(maps.Keys(dialects)),
		Args:      usage(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(c *cobra.Command, args []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), sqlquota.Schema(dialects[args[0]]))
			return unlessGone(err)
		},
	}
}
