package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
	"github.com/admit-go/admit/sqlkeys"
)

// store is where keys are: a *sqlkeys.Store, or a key file with the same methods.
type store interface {
	// Import adds keys, and goes on after a conflict. With an error, the tally counts what
	// was done before it.
	Import(ctx context.Context, rows []keyinput.Row) (tally, error)
	Insert(ctx context.Context, d admit.Digest, k *admit.Key) error
	Get(ctx context.Context, id string) (*sqlkeys.Record, error)
	List(ctx context.Context, owner string) iter.Seq2[*sqlkeys.Record, error]
	Revoke(ctx context.Context, id string, at time.Time) (*sqlkeys.Record, error)
	// Update changes a key, unless change returns an error. It may call change again.
	Update(ctx context.Context, id string, change func(*admit.Key) error) (*sqlkeys.Record, error)
	Rotate(ctx context.Context, id string, until time.Time, d admit.Digest, next *admit.Key) error
	// Now returns the time by the clock of the store, from which durations such as 12h count.
	Now(ctx context.Context) (time.Time, error)
	Close() error
}

// database closes the *sql.DB along with the store.
type database struct {
	*sqlkeys.Store
	db      *sql.DB
	dialect sqlkeys.Dialect
}

func openDatabase(driver, dsn string, dialect sqlkeys.Dialect) (store, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	s, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: dialect})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &database{s, db, dialect}, nil
}

func (d *database) Now(ctx context.Context) (now time.Time, err error) {
	if d.dialect == sqlkeys.SQLite { // whose clock is that of this process
		return time.Now(), nil
	}
	if err := d.db.QueryRowContext(ctx, `SELECT now()`).Scan(&now); err != nil {
		return now, fmt.Errorf("ask the database for the time: %w", err)
	}
	return now, nil
}

func (d *database) Close() error { return errors.Join(d.Store.Close(), d.db.Close()) }

// Import inserts the keys one by one, since services use the table meanwhile. It may take long,
// so each key has its own patience.
func (d *database) Import(ctx context.Context, rows []keyinput.Row) (tally, error) {
	var t tally
	for _, row := range rows {
		if err := d.importRow(ctx, row, &t); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (d *database) importRow(ctx context.Context, row keyinput.Row, t *tally) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := d.Insert(ctx, row.Digest, row.Key)
	if err == nil {
		t.imported++
		return nil
	}
	if !errors.Is(err, sqlkeys.ErrExists) {
		return about(row.Key.ID, err)
	}
	if row.Unnamed { // so it is the token that exists
		t.there++
		return nil
	}
	switch r, err := d.Get(ctx, row.Key.ID); {
	case errors.Is(err, admit.ErrKeyNotFound):
		t.conflict(row, "its token belongs to another key")
	case err != nil:
		return about(row.Key.ID, err)
	case r.Digest != row.Digest:
		t.conflict(row, "a key with this id has another token")
	default:
		t.there++
	}
	return nil
}
