package sqlquota

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/sqldb"
)

const (
	// batch is how many counts one statement has: PostgreSQL takes 65,535 parameters.
	batch = 500
	// forgetShares is how long after its last claim a share that holds nothing may be deleted.
	forgetShares = 24 * time.Hour
)

// Settle implements admit.QuotaStore. It is one transaction of five round trips for up to 500
// counts. For claims that only look, it takes one round trip, and locks and keeps nothing.
func (s *Store) Settle(ctx context.Context, claims []admit.QuotaClaim) ([]admit.QuotaBalance, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	balances := make([]admit.QuotaBalance, len(claims))
	claimed, looked := group(claims)
	if len(claimed) > 0 {
		err := s.dialect.InTx(ctx, s.db, func(tx *sql.Tx) error {
			for some := range slices.Chunk(claimed, batch) {
				if err := s.settle(ctx, tx, some, balances); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, s.wrap("settle quotas", err)
		}
	}
	for some := range slices.Chunk(looked, batch) {
		if err := sqldb.Again(ctx, func() error { return s.load(ctx, s.db, some) }); err != nil {
			return nil, s.wrap("look at quotas", err)
		}
		for _, c := range some {
			c.settle(balances)
		}
	}
	s.forgetNowAndThen()
	return balances, nil
}

// count is a row of admit_quota_counts, with the claims of one call for it.
type count struct {
	id     countID
	claims []claim
	admit.QuotaCount
	shares map[string]admit.QuotaShare // by process, of the processes that claim
	was    map[string]admit.QuotaShare // the same before the call
	added  int64
}

type claim struct {
	admit.QuotaClaim
	at int // index among the claims of the call
}

// group returns the counts of the claims: those that may change, in the order in which all
// calls lock them, and those that are only read.
func group(claims []admit.QuotaClaim) (claimed, looked []*count) {
	counts := make(map[countID]*count, len(claims))
	changes := make(map[countID]bool, len(claims))
	for i, c := range claims {
		id := idOf(c.Account, c.Quota, c.Period)
		if counts[id] == nil {
			counts[id] = &count{id: id}
		}
		counts[id].claims = append(counts[id].claims, claim{c, i})
		changes[id] = changes[id] || c.Process != ""
	}
	for id, c := range counts {
		if changes[id] {
			claimed = append(claimed, c)
		} else {
			looked = append(looked, c)
		}
	}
	slices.SortFunc(claimed, func(a, b *count) int { return bytes.Compare(a.id[:], b.id[:]) })
	return claimed, looked
}

// settle applies the claims, in their order.
func (c *count) settle(balances []admit.QuotaBalance) {
	for _, claim := range c.claims {
		process := processOf(claim.Process)
		share := c.shares[process]
		balance, added := claim.Settle(&c.QuotaCount, &share)
		c.shares[process] = share
		c.added = saturated(c.added, added)
		balances[claim.at] = balance
	}
}

func saturated(a, b int64) int64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return 1<<63 - 1
}

// processOf returns the name of a process for its column, short enough for the index.
func processOf(process string) string {
	if len(process) > 256 {
		sum := sha256.Sum256([]byte(process))
		return `\sha256:` + hex.EncodeToString(sum[:])
	}
	return escape(process)
}

func (s *Store) settle(ctx context.Context, tx *sql.Tx, counts []*count, balances []admit.QuotaBalance) error {
	if err := s.run(ctx, tx, s.lock(counts)); err != nil {
		return err
	}
	if err := s.load(ctx, tx, counts); err != nil {
		return err
	}
	for _, c := range counts {
		c.settle(balances)
	}
	return s.write(ctx, tx, counts)
}

// statement is an SQL statement with its parameters.
type statement struct {
	text string
	args []any
}

// lock inserts the missing rows and locks all of them. PostgreSQL also locks a row that
// ON CONFLICT does not update. In SQLite it begins the transaction with a write.
func (s *Store) lock(counts []*count) statement {
	var args []any
	for _, c := range counts {
		args = append(args, s.countColumns(c)...)
	}
	return statement{`INSERT INTO admit_quota_counts (id, account, quota, period, ends_at) VALUES ` + rows(`(?, ?, ?, ?, ?)`, len(counts)) + `
		ON CONFLICT (id) DO UPDATE SET used = admit_quota_counts.used WHERE false`, args}
}

// countColumns are the columns of a count that never change.
func (s *Store) countColumns(c *count) []any {
	of, ends := c.claims[0], time.Time{}
	for _, claim := range c.claims {
		if claim.Ends.After(ends) {
			ends = claim.Ends
		}
	}
	return []any{c.id[:], escape(of.Account), escape(of.Quota), escape(of.Period), s.ends(ends)}
}

// ends is within what every database has for a time.
func (s *Store) ends(t time.Time) any {
	if first := time.Unix(0, 0); t.Before(first) {
		t = first
	}
	if last := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC); t.After(last) {
		t = last
	}
	return s.dialect.Moment(t)
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// load reads the counts, and the shares of the processes that claim. Missing rows are zero.
func (s *Store) load(ctx context.Context, q querier, counts []*count) error {
	byID := make(map[countID]*count, len(counts))
	processes := make(map[string]bool)
	var ids []any
	for _, c := range counts {
		c.QuotaCount, c.added = admit.QuotaCount{}, 0
		c.shares, c.was = make(map[string]admit.QuotaShare), make(map[string]admit.QuotaShare)
		byID[c.id] = c
		ids = append(ids, c.id[:])
		for _, claim := range c.claims {
			processes[processOf(claim.Process)] = true
		}
	}
	var args []any
	for p := range processes {
		args = append(args, p)
	}
	found, err := q.QueryContext(ctx, s.dialect.Query(`SELECT c.id, c.used, c.held, c.told,
			COALESCE(s.process, ''), COALESCE(s.seq, 0), COALESCE(s.used, 0), COALESCE(s.held, 0), COALESCE(s.notice, 0), COALESCE(s.notice_seq, 0)
		FROM admit_quota_counts AS c LEFT JOIN admit_quota_shares AS s ON s.count_id = c.id AND s.process IN (`+rows(`?`, len(processes))+`)
		WHERE c.id IN (`+rows(`?`, len(ids))+`)`), append(args, ids...)...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var id []byte
		var count admit.QuotaCount
		var process string
		var share admit.QuotaShare
		if err := found.Scan(&id, &count.Used, &count.Held, &count.Told, &process, &share.Seq, &share.Used, &share.Held, &share.Notice, &share.NoticeSeq); err != nil {
			return err
		}
		c := byID[countID(id)]
		c.QuotaCount, c.shares[process], c.was[process] = count, share, share
	}
	return found.Err()
}

// write writes the changed rows.
func (s *Store) write(ctx context.Context, tx *sql.Tx, counts []*count) error {
	var changed, used, shared, joined []any
	for _, c := range counts {
		if c.unchanged() {
			continue
		}
		changed = append(append(changed, s.countColumns(c)...), c.Used, c.Held, c.Told)
		for process, share := range c.shares {
			if share == c.was[process] {
				continue
			}
			shared = append(shared, c.id[:], process, share.Seq, share.Used, share.Held, share.Notice, share.NoticeSeq)
			if c.was[process].Seq == 0 {
				joined = append(joined, c.id[:])
			}
		}
		if c.added > 0 {
			used = append(append(append(used, rand.Text()), s.countColumns(c)[:4]...), c.added)
		}
	}
	var all []statement
	if len(joined) > 0 { // when a process is new to a count, delete those that have left
		all = append(all, statement{`DELETE FROM admit_quota_shares WHERE held = 0 AND claimed_at < ` + s.ago(forgetShares) + ` AND count_id IN (` + rows(`?`, len(joined)) + `)`, joined})
	}
	if n := len(used) / 6; n > 0 {
		// Offer removes a record from the index admit_quota_usage_open; a statement that has waited for that inserts a new record.
		all = append(all, statement{`INSERT INTO admit_quota_usage (id, count_id, account, quota, period, requests, minute) VALUES ` + rows(`(?, ?, ?, ?, ?, ?, `+s.minute()+`)`, n) + `
			ON CONFLICT (count_id, minute) WHERE offered_at IS NULL DO UPDATE SET requests =
			CASE WHEN admit_quota_usage.requests > 9223372036854775807 - excluded.requests THEN 9223372036854775807 ELSE admit_quota_usage.requests + excluded.requests END`, used})
	}
	if n := len(shared) / 7; n > 0 {
		all = append(all, statement{`INSERT INTO admit_quota_shares (count_id, process, seq, used, held, notice, notice_seq, claimed_at) VALUES ` + rows(`(?, ?, ?, ?, ?, ?, ?, `+s.dialect.Now()+`)`, n) + `
			ON CONFLICT (count_id, process) DO UPDATE SET seq = excluded.seq, used = excluded.used, held = excluded.held,
			notice = excluded.notice, notice_seq = excluded.notice_seq, claimed_at = excluded.claimed_at`, shared})
	}
	if n := len(changed) / 8; n > 0 {
		all = append(all, statement{`INSERT INTO admit_quota_counts (id, account, quota, period, ends_at, used, held, told) VALUES ` + rows(`(?, ?, ?, ?, ?, ?, ?, ?)`, n) + `
			ON CONFLICT (id) DO UPDATE SET used = excluded.used, held = excluded.held, told = excluded.told`, changed})
	}
	return s.run(ctx, tx, all...)
}

// unchanged reports whether no claim has changed anything.
func (c *count) unchanged() bool {
	for process, share := range c.shares {
		if share != c.was[process] {
			return false
		}
	}
	return true
}

// minute returns an expression for the beginning of the current minute.
func (s *Store) minute() string {
	if s.dialect == SQLite {
		return fmt.Sprintf(`(%s / 60000000) * 60000000`, s.dialect.Now())
	}
	return `date_trunc('minute', ` + s.dialect.Now() + `)`
}

// run runs statements on different rows. In PostgreSQL it joins them into one statement, for
// one round trip.
func (s *Store) run(ctx context.Context, tx *sql.Tx, statements ...statement) error {
	if s.dialect == PostgreSQL && len(statements) > 1 {
		last := len(statements) - 1
		var one statement
		var with []string
		for i, each := range statements[:last] {
			with = append(with, fmt.Sprintf(`s%d AS (%s)`, i, each.text))
			one.args = append(one.args, each.args...)
		}
		one.text = `WITH ` + strings.Join(with, `, `) + ` ` + statements[last].text
		one.args = append(one.args, statements[last].args...)
		statements = []statement{one}
	}
	for _, each := range statements {
		if _, err := tx.ExecContext(ctx, s.dialect.Query(each.text), each.args...); err != nil {
			return err
		}
	}
	return nil
}

// rows repeats one n times, as in ?, ?, ?
func rows(one string, n int) string {
	return strings.Repeat(one+`, `, n-1) + one
}
