package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit/internal/sqldb"
)

// state is an error as drivers of PostgreSQL have it.
type state string

func (s state) Error() string    { return `relation "admit_x" (SQLSTATE ` + string(s) + ")" }
func (s state) SQLState() string { return string(s) }

func TestQuery(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "a = $1 AND b IN ($2, $3)", sqldb.PostgreSQL.Query("a = ? AND b IN (?, ?)"))
	assert.Equal(t, "a = ?", sqldb.SQLite.Query("a = ?"))
	assert.Equal(t, "now()", sqldb.PostgreSQL.Query("now()"))
}

func TestMoment(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600))
	for _, d := range []sqldb.Dialect{sqldb.PostgreSQL, sqldb.SQLite} {
		for _, want := range []time.Time{at.UTC(), {}} {
			var got sqldb.Moment
			assert.NoError(t, got.Scan(d.Moment(want)))
			assert.Equal(t, want, got.Time, d)
		}
	}
	var m sqldb.Moment
	assert.Error(t, m.Scan("yesterday"))
}

// What the database asks for is done again, for as long as that may help.
func TestAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		tries int
	}{
		{state("40001"), 10},
		{state("40P01"), 10},
		{fmt.Errorf("a statement: %w", state("26000")), 10},
		{state("0A000"), 10},
		{state("23505"), 1},
		{errors.New("40001"), 1},
		{context.Canceled, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			assert.Equal(t, c.err, sqldb.Again(t.Context(), func() error { tries++; return c.err }))
			assert.Equal(t, c.tries, tries, c.err)
			tries = 0
			assert.NoError(t, sqldb.Again(t.Context(), func() error {
				if tries++; tries < c.tries {
					return c.err
				}
				return nil
			}))
			assert.Equal(t, c.tries, tries)
			ctx, cancel := context.WithCancel(t.Context())
			tries = 0
			assert.Equal(t, c.err, sqldb.Again(ctx, func() error { tries++; cancel(); return c.err }))
			assert.LessOrEqual(t, tries, 2)
		})
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	gone := errors.New("no such table: admit_y")
	explain := func(d sqldb.Dialect, err error) string {
		explained := d.Explain(err, "admit x schema", "admit_x", "admit_y")
		assert.ErrorIs(t, explained, err)
		return explained.Error()
	}
	assert.Contains(t, explain(sqldb.PostgreSQL, state("42P01")), "there is no table admit_x; create it with the output of `admit x schema`: ")
	assert.Contains(t, explain(sqldb.SQLite, gone), "there is no table admit_y; create it with the output of `admit x schema`: ")
	assert.Equal(t, gone.Error(), explain(sqldb.PostgreSQL, gone))
	assert.Contains(t, explain(sqldb.PostgreSQL, state("26000")), "default_query_exec_mode=exec")
	assert.Equal(t, state("40001").Error(), explain(sqldb.PostgreSQL, state("40001")))
}

func TestDialects(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "PostgreSQL SQLite Dialect(0)", fmt.Sprint(sqldb.PostgreSQL, " ", sqldb.SQLite, " ", sqldb.Dialect(0)))
	assert.NotEqual(t, sqldb.PostgreSQL.Now(), sqldb.SQLite.Now())
}
