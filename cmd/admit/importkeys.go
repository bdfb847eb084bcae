package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
)

func importCommand(o *options) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "import [FILE|-]",
		Short: "Import keys of another system, or of a key file",
		Long: `Import keys from a file or standard input. Everything is checked before anything is
written. Tokens are kept only as digests, and are never printed.

JSON has one object per line, with token or digest (the SHA-256 of the token in
hexadecimal), and optionally id, owner, plan, scopes, limits, quotas, networks,
not_before, expires_at, revoked_at and meta. CSV has the same names in its first row, and
meta.NAME for each name of meta; scopes, networks, limits (NAME=REQUESTS/PERIOD[:BURST])
and quotas ([NAME=]REQUESTS/PERIOD[:soft]) are separated by spaces. Times are in RFC 3339.
A key without an id gets a random one. A key file of admit is recognized, and its keys are
imported as they are.

A token must have at least 16 visible ASCII characters: a shorter one could be guessed
from its SHA-256. If a service sets AuthConfig.MintedPrefixes, the prefix of imported
tokens must not be among them.

A key that exists with the same id and token is left as it is, so the command can be run
again. If an id or token belongs to another key, that is a conflict: it is reported, the
other keys are imported, and the command exits with 4.`,
		Example: `  admit keys import customers.csv
  psql -c "COPY (SELECT token, owner FROM old_keys) TO STDOUT CSV HEADER" | admit keys import
  admit keys import --keys postgres://db/service keys.json
  admit keys list --keys sqlite:keys.db --json | jq -c 'del(.state, .created_at, .last_used_at)' |
    admit keys import --keys postgres://db/service`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if format != "" && format != "json" && format != "csv" {
				return usagef("--format %q is neither json nor csv", format)
			}
			rows, err := readRows(c.Context(), c.InOrStdin(), args, format)
			if err != nil {
				return err
			}
			return o.with(c, func(ctx context.Context, s store) error {
				t, err := s.Import(ctx, rows)
				conflicts := o.report(c, t, len(rows))
				if err != nil {
					return err // the conflicts have been reported
				}
				return conflicts
			})
		},
	}
	c.Flags().StringVar(&format, "format", "", "`FORMAT` of the input: json (lines, or a key file) or csv (default: json if the first character is {, else csv)")
	return c
}

func readRows(ctx context.Context, in io.Reader, args []string, format string) ([]keyinput.Row, error) {
	name := "standard input"
	if len(args) == 1 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, name = f, clean(args[0])
	}
	rows, err := parse(ctx, in, name, format)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if rows[i].Unnamed {
			rows[i].Key.ID = randomID()
		}
	}
	return rows, nil
}

// parse is keyinput.Parse, but returns when ctx is done: a terminal or a pipe may never send
// anything. The goroutine then ends with the process.
func parse(ctx context.Context, in io.Reader, name, format string) ([]keyinput.Row, error) {
	type result struct {
		rows []keyinput.Row
		err  error
	}
	parsed := make(chan result, 1)
	go func() {
		rows, err := keyinput.Parse(in, name, format)
		parsed <- result{rows, err}
	}()
	select {
	case r := <-parsed:
		return r.rows, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tally counts what happened to the rows of an import.
type tally struct {
	imported, there int
	conflicts       []conflict
}

type conflict struct {
	row keyinput.Row
	why string
}

func (t *tally) conflict(row keyinput.Row, why string) {
	t.conflicts = append(t.conflicts, conflict{row, why})
}

// report prints what happened to the rows. It returns an error if there are conflicts.
func (o *options) report(c *cobra.Command, t tally, rows int) error {
	for _, x := range t.conflicts {
		fmt.Fprintf(c.ErrOrStderr(), "conflict in line %d: %s: %s\n", x.row.Line, clean(x.row.Key.ID), x.why)
	}
	fmt.Fprintf(c.ErrOrStderr(), "%d imported, %d already there, %d in conflict\n", t.imported, t.there, len(t.conflicts))
	if rest := rows - t.imported - t.there - len(t.conflicts); rest > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "%d not processed; run the command again to continue\n", rest)
	}
	if o.json {
		ids := []string{}
		for _, x := range t.conflicts {
			ids = append(ids, x.row.Key.ID)
		}
		if err := printLine(c.OutOrStdout(), struct {
			Imported  int      `json:"imported"`
			There     int      `json:"there_already"`
			Conflicts []string `json:"conflicts"`
		}{t.imported, t.there, ids}); err != nil {
			return unlessGone(err)
		}
	}
	if len(t.conflicts) > 0 {
		return fmt.Errorf("%d not imported: %w", len(t.conflicts), errConflict)
	}
	return nil
}

// errConflict makes the command exit with 4.
var errConflict = errors.New("the id or token belongs to another key")
