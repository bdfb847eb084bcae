package main

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/admit-go/admit/sqlkeys"
)

// printJSON prints a record as one line, with its token where there is one to show.
func printJSON(w io.Writer, r *sqlkeys.Record, token string) error {
	return json.NewEncoder(w).Encode(struct {
		ID         string            `json:"id"`
		Token      string            `json:"token,omitzero"`
		State      string            `json:"state"`
		Owner      string            `json:"owner,omitzero"`
		Plan       string            `json:"plan,omitzero"`
		Scopes     []string          `json:"scopes,omitempty"`
		Digest     string            `json:"digest"`
		NotBefore  time.Time         `json:"not_before,omitzero"`
		ExpiresAt  time.Time         `json:"expires_at,omitzero"`
		RevokedAt  time.Time         `json:"revoked_at,omitzero"`
		CreatedAt  time.Time         `json:"created_at,omitzero"`
		LastUsedAt time.Time         `json:"last_used_at,omitzero"`
		Meta       map[string]string `json:"meta,omitempty"`
	}{
		r.ID, token, r.Status(time.Now()).String(), r.Owner, r.Plan, r.Scopes, r.Digest.String(),
		r.NotBefore, r.ExpiresAt, r.RevokedAt, r.CreatedAt, r.LastUsedAt, r.Meta,
	})
}

// printTable aligns its columns by the thousand lines, so that it holds no more.
func printTable(w io.Writer, records iter.Seq2[*sqlkeys.Record, error]) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tOWNER\tPLAN\tSTATE\tEXPIRES\tLAST USED\tHINT\tSCOPES")
	now, lines := time.Now(), 0
	for r, err := range records {
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", clean(r.ID), clean(r.Owner), clean(r.Plan), r.Status(now),
			date(r.ExpiresAt), date(r.LastUsedAt), clean(r.Meta["hint"]), clean(strings.Join(r.Scopes, " ")))
		if lines++; lines%1000 == 0 {
			if err := t.Flush(); err != nil {
				return err
			}
		}
	}
	return t.Flush()
}

func printRecord(w io.Writer, r *sqlkeys.Record) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" && value != "-" {
			fmt.Fprintf(t, "%s\t%s\n", name, clean(value))
		}
	}
	line("id", r.ID)
	line("state", r.Status(time.Now()).String())
	line("owner", r.Owner)
	line("plan", r.Plan)
	line("scopes", strings.Join(r.Scopes, " "))
	line("digest", r.Digest.String())
	line("not before", date(r.NotBefore))
	line("expires", date(r.ExpiresAt))
	line("revoked", date(r.RevokedAt))
	line("created", date(r.CreatedAt))
	line("last used", date(r.LastUsedAt))
	for _, name := range slices.Sorted(maps.Keys(r.Meta)) {
		line("meta "+clean(name), r.Meta[name])
	}
	return t.Flush()
}

func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// clean keeps what is in a store from moving the cursor of a terminal.
func clean(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
