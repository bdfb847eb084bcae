package main

import (
	"errors"
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
		Short: "Print the SQL that creates the table of keys, or upgrades it",
		Long: `Print the SQL that creates the table admit_keys. With --from, print the SQL that upgrades
a table of an earlier version, which may run while services use the table, and keeps its
keys. Version 1 has no columns networks, limits, quotas and former. For PostgreSQL the
upgrade is one statement, which may run twice; for SQLite it needs a transaction.`,
		Example: `  admit keys schema postgresql | psql "$ADMIT_KEYS"
  admit keys schema postgresql --from 1 | psql "$ADMIT_KEYS"
  admit keys schema sqlite | sqlite3 keys.db
  (echo 'BEGIN IMMEDIATE;'; admit keys schema sqlite --from 1; echo 'COMMIT;') | sqlite3 -bail keys.db`,
		ValidArgs: slices.Sorted(maps.Keys(dialects)),
		Args:      usage(isDialect),
		RunE: func(c *cobra.Command, args []string) error {
			dialect := dialects[args[0]]
			text := sqlkeys.Schema(dialect)
			if c.Flags().Changed("from") {
				if from != 1 {
					return usagef("--from %d: the only earlier version is 1", from)
				}
				text = sqlkeys.SchemaFrom(dialect, from)
			}
			_, err := fmt.Fprint(c.OutOrStdout(), text)
			return unlessGone(err)
		},
	}
	c.Flags().IntVar(&from, "from", 0, "`VERSION` of the existing table")
	return withoutStore(c)
}

// withoutStore leaves the flags of options out of the help of a command that uses no store.
func withoutStore(c *cobra.Command) *cobra.Command {
	c.SetHelpFunc(func(c *cobra.Command, args []string) {
		for _, name := range []string{"keys", "json"} {
			c.InheritedFlags().Lookup(name).Hidden = true
		}
		c.Parent().HelpFunc()(c, args)
	})
	return c
}

// isDialect accepts the name of one dialect.
func isDialect(_ *cobra.Command, args []string) error {
	switch {
	case len(args) != 1:
		return errors.New("give one of postgresql and sqlite")
	case dialects[args[0]] == 0:
		return fmt.Errorf("there is no schema for %q: give postgresql or sqlite", args[0])
	}
	return nil
}

func quotasSchemaCommand() *cobra.Command {
	return withoutStore(&cobra.Command{
		Use:   "schema postgresql|sqlite",
		Short: "Print the SQL that creates the tables of quota usage",
		Long: `Print the SQL that creates the tables in which package sqlquota keeps the usage of quotas:
admit_quota_counts, admit_quota_shares and admit_quota_usage.`,
		Example: `  admit quotas schema postgresql | psql "$ADMIT_QUOTAS"
  admit quotas schema sqlite | sqlite3 quotas.db`,
		ValidArgs: slices.Sorted(maps.Keys(dialects)),
		Args:      usage(isDialect),
		RunE: func(c *cobra.Command, args []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), sqlquota.Schema(dialects[args[0]]))
			return unlessGone(err)
		},
	})
}
