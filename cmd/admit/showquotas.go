package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit/sqlquota"
)

func showQuotasCommand(o *options) *cobra.Command {
	var where string
	c := &cobra.Command{
		Use:   "show ACCOUNT",
		Short: "Show the quota usage of an account",
		Long: `Show the quota usage of an account in each period, as package sqlquota keeps it. USED is
what services have reported so far, and HELD what they have taken in advance beyond that.
The name of a period is its first day and its length, such as 2026-01-31/P1M. A period is
deleted 35 days after its end.`,
		Example: `  admit quotas show ACME --quotas postgres://db/service
  admit quotas show ACME --json | jq 'select(.quota == "month") | .used'`,
		Args: one("ACCOUNT"),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("the account is empty")
			}
			return withQuotas(c, cmp.Or(where, os.Getenv("ADMIT_QUOTAS"), o.where()), func(ctx context.Context, s *sqlquota.Store) error {
				counts, err := countsOf(ctx, s, args[0])
				if err != nil {
					return err
				}
				if o.json {
					return unlessGone(printCountsJSON(c.OutOrStdout(), counts))
				}
				return unlessGone(printCounts(c.OutOrStdout(), counts))
			})
		},
	}
	c.Flags().StringVar(&where, "quotas", "", "`URL` of the database with the quota usage\n(default $ADMIT_QUOTAS, or else the database of the keys)")
	return c
}

// withQuotas opens the quota store for one command.
func withQuotas(c *cobra.Command, where string, do func(ctx context.Context, s *sqlquota.Store) error) (err error) {
	if where == "" {
		return usagef("no database is given: use --quotas or ADMIT_QUOTAS")
	}
	opened, err := openStore(where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	d, ok := opened.(*database)
	if !ok {
		return usagef("quota usage is in a database, not in a key file: use --quotas or ADMIT_QUOTAS with postgres://USER@HOST/DATABASE or sqlite:PATH")
	}
	s, err := sqlquota.New(sqlquota.Config{DB: d.db, Dialect: d.dialect})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	return do(ctx, s)
}

// countsOf returns the counts of an account, sorted by quota, the latest period first.
func countsOf(ctx context.Context, s *sqlquota.Store, account string) ([]sqlquota.Count, error) {
	var counts []sqlquota.Count
	for count, err := range s.List(ctx, account) {
		if err != nil {
			return nil, err
		}
		counts = append(counts, count)
	}
	slices.SortFunc(counts, func(a, b sqlquota.Count) int {
		return cmp.Or(cmp.Compare(a.Quota, b.Quota), b.Ends.Compare(a.Ends), cmp.Compare(a.Period, b.Period))
	})
	return counts, nil
}

func printCounts(w io.Writer, counts []sqlquota.Count) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "QUOTA\tPERIOD\tENDS\tUSED\tHELD")
	for _, count := range counts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\n", clean(count.Quota), clean(count.Period), date(count.Ends), count.Used, count.Held)
	}
	return t.Flush()
}

func printCountsJSON(w io.Writer, counts []sqlquota.Count) error {
	for _, count := range counts {
		err := printLine(w, struct {
			Account string    `json:"account"`
			Quota   string    `json:"quota"`
			Period  string    `json:"period"`
			EndsAt  time.Time `json:"ends_at"`
			Used    int64     `json:"used"`
			Held    int64     `json:"held"`
		}{count.Account, count.Quota, count.Period, count.Ends, count.Used, count.Held})
		if err != nil {
			return err
		}
	}
	return nil
}
