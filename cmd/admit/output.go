package main

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
	"github.com/admit-go/admit/internal/keyform"
	"github.com/admit-go/admit/sqlkeys"
)

// printKey prints one key, for people or as JSON.
func (o *options) printKey(c *cobra.Command, r *sqlkeys.Record) error {
	if o.json {
		return unlessGone(printJSON(c.OutOrStdout(), r, ""))
	}
	return unlessGone(printRecord(c.OutOrStdout(), r))
}

// printJSON prints a record as one line of JSON, with its token if that is not empty.
func printJSON(w io.Writer, r *sqlkeys.Record, token string) error {
	return printLine(w, struct {
		ID         string                        `json:"id"`
		Token      string                        `json:"token,omitzero"`
		State      string                        `json:"state"`
		Owner      string                        `json:"owner,omitzero"`
		Plan       string                        `json:"plan,omitzero"`
		Scopes     []string                      `json:"scopes,omitempty"`
		Limits     []keyform.Limit               `json:"limits,omitempty"`
		Quotas     []keyform.Quota[admit.Period] `json:"quotas,omitempty"`
		Networks   []netip.Prefix                `json:"networks,omitempty"`
		Digest     string                        `json:"digest"`
		NotBefore  time.Time                     `json:"not_before,omitzero"`
		ExpiresAt  time.Time                     `json:"expires_at,omitzero"`
		RevokedAt  time.Time                     `json:"revoked_at,omitzero"`
		CreatedAt  time.Time                     `json:"created_at,omitzero"`
		LastUsedAt time.Time                     `json:"last_used_at,omitzero"`
		Meta       map[string]string             `json:"meta,omitempty"`
	}{
		r.ID, token, r.Status(time.Now()).String(), r.Owner, r.Plan, r.Scopes, keyinput.LimitsJSON(r.Limits), keyinput.QuotasJSON(r.Quotas), r.Networks,
		r.Digest.String(), r.NotBefore, r.ExpiresAt, r.RevokedAt, r.CreatedAt, r.LastUsedAt, r.Meta,
	})
}

// printLine prints a value as one line of JSON. It escapes the characters that control a
// terminal and that encoding/json leaves as they are.
func printLine(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var line []byte
	for _, r := range string(text) {
		if keyinput.Unprintable(r) { // always inside a string
			line = fmt.Appendf(line, `\u%04x`, r)
			continue
		}
		line = append(line, string(r)...)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

func printLines(w io.Writer, records iter.Seq[*sqlkeys.Record]) error {
	for r := range records {
		if err := printJSON(w, r, ""); err != nil {
			return err
		}
	}
	return nil
}

// printTable aligns its columns for 1,000 lines at a time, so that it does not keep more in
// memory. It prints no head if there are only rows that could not be read.
func printTable(w io.Writer, records iter.Seq[*sqlkeys.Record], unread *[]error) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	head := func() {
		fmt.Fprintln(t, "ID\tOWNER\tPLAN\tSTATE\tEXPIRES\tLAST USED\tHINT\tSCOPES\tLIMITS\tQUOTAS\tNETWORKS")
	}
	now, lines := time.Now(), 0
	for r := range records {
		if lines == 0 {
			head()
		}
		cells := []string{
			r.ID, r.Owner, r.Plan, r.Status(now).String(), date(r.ExpiresAt), date(r.LastUsedAt),
			r.Meta["hint"], strings.Join(r.Scopes, " "), limitList(r.Limits), quotaList(r.Quotas), networkList(r.Networks),
		}
		for i, cell := range cells {
			if cells[i] = clean(cell); cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
		if lines++; lines%1000 == 0 {
			if err := t.Flush(); err != nil {
				return err
			}
		}
	}
	if lines == 0 && len(*unread) == 0 {
		head()
	}
	return t.Flush()
}

func printRecord(w io.Writer, r *sqlkeys.Record) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, clean(value))
		}
	}
	line("id", r.ID)
	line("state", r.Status(time.Now()).String())
	line("owner", r.Owner)
	line("plan", r.Plan)
	line("scopes", strings.Join(r.Scopes, " "))
	line("limits", limitList(r.Limits))
	line("quotas", quotaList(r.Quotas))
	line("networks", networkList(r.Networks))
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

func limitList(limits []admit.Limit) string {
	var list []string
	for _, l := range limits {
		list = append(list, keyinput.FormatLimit(l))
	}
	return strings.Join(list, " ")
}

func quotaList(quotas []admit.Quota) string {
	var list []string
	for _, q := range quotas {
		list = append(list, keyinput.FormatQuota(q))
	}
	return strings.Join(list, " ")
}

func networkList(networks []netip.Prefix) string {
	var list []string
	for _, n := range networks {
		list = append(list, n.String())
	}
	return strings.Join(list, " ")
}

// date formats a time; it returns "" for the zero time.
func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
