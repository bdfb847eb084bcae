package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/sqlkeys"
)

// store is where keys are: a *sqlkeys.Store, or a file that is managed as one.
type store interface {
	Insert(ctx context.Context, d admit.Digest, k *admit.Key) error
	Get(ctx context.Context, id string) (*sqlkeys.Record, error)
	List(ctx context.Context, owner string) iter.Seq2[*sqlkeys.Record, error]
	Revoke(ctx context.Context, id string, at time.Time) (*sqlkeys.Record, error)
	Rotate(ctx context.Context, id string, until time.Time, d admit.Digest, next *admit.Key) error
	Close() error
}

func openStore(where string) (store, error) {
	scheme, rest, _ := strings.Cut(where, ":")
	switch scheme {
	case "postgres", "postgresql":
		return openDatabase("pgx", where, sqlkeys.PostgreSQL)
	case "sqlite":
		path := strings.TrimPrefix(rest, "//")
		if path == "" {
			return nil, usagef("%q names no file", where)
		}
		// mode=rw: a mistyped path is no new database.
		return openDatabase("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=rw&_pragma=busy_timeout(10000)", sqlkeys.SQLite)
	}
	if strings.HasPrefix(rest, "//") {
		return nil, usagef("there is no support for %s: use a file, postgres://... or sqlite:PATH", scheme)
	}
	return openFile(where)
}

// database closes the *sql.DB along with the store.
type database struct {
	*sqlkeys.Store
	db *sql.DB
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
	return &database{s, db}, nil
}

func (d *database) Close() error { return errors.Join(d.Store.Close(), d.db.Close()) }

// file is a key file. Each change is made under a lock, and replaces the file.
type file struct{ path string }

func openFile(path string) (store, error) {
	// The file that a link leads to is replaced, not the link.
	switch real, err := filepath.EvalSymlinks(path); {
	case err == nil:
		path = real
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return &file{path}, nil
}

func (f *file) Close() error { return nil }

// change lets one process at a time read the keys, change them, and write them. The
// file of the lock stays: who removes it would let two in.
func (f *file) change(ctx context.Context, do func(keys admit.KeyMap) error) error {
	lock := flock.New(f.path+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	defer lock.Close()
	keys, err := admit.ReadKeyFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		keys, err = admit.KeyMap{}, nil
	}
	if err != nil {
		return err
	}
	if err := do(keys); err != nil {
		return err
	}
	return admit.WriteKeyFile(f.path, keys)
}

func (f *file) Insert(ctx context.Context, d admit.Digest, k *admit.Key) error {
	return f.change(ctx, func(keys admit.KeyMap) error { return add(keys, d, k) })
}

func add(keys admit.KeyMap, d admit.Digest, k *admit.Key) error {
	if _, there := find(keys, k.ID); there || keys[d] != nil {
		return fmt.Errorf("%s: %w", k.ID, sqlkeys.ErrExists)
	}
	keys[d] = k
	return nil
}

func find(keys admit.KeyMap, id string) (admit.Digest, bool) {
	for d, k := range keys {
		if k.ID == id {
			return d, true
		}
	}
	return admit.Digest{}, false
}

func (f *file) Get(_ context.Context, id string) (*sqlkeys.Record, error) {
	keys, err := admit.ReadKeyFile(f.path)
	if err != nil {
		return nil, err
	}
	d, there := find(keys, id)
	if !there {
		return nil, admit.ErrKeyNotFound
	}
	return &sqlkeys.Record{Key: *keys[d], Digest: d}, nil
}

func (f *file) List(_ context.Context, owner string) iter.Seq2[*sqlkeys.Record, error] {
	return func(yield func(*sqlkeys.Record, error) bool) {
		keys, err := admit.ReadKeyFile(f.path)
		if err != nil {
			yield(nil, err)
			return
		}
		var records []*sqlkeys.Record
		for d, k := range keys {
			if owner == "" || k.Owner == owner {
				records = append(records, &sqlkeys.Record{Key: *k, Digest: d})
			}
		}
		slices.SortFunc(records, func(a, b *sqlkeys.Record) int { return cmp.Compare(a.ID, b.ID) })
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (f *file) Revoke(ctx context.Context, id string, at time.Time) (*sqlkeys.Record, error) {
	if at.IsZero() {
		at = time.Now().UTC().Truncate(time.Second)
	}
	var r *sqlkeys.Record
	err := f.change(ctx, func(keys admit.KeyMap) error {
		d, there := find(keys, id)
		if !there {
			return admit.ErrKeyNotFound
		}
		if k := keys[d]; k.RevokedAt.IsZero() || k.RevokedAt.After(at) {
			k.RevokedAt = at
		}
		r = &sqlkeys.Record{Key: *keys[d], Digest: d}
		return nil
	})
	return r, err
}

func (f *file) Rotate(ctx context.Context, id string, until time.Time, d admit.Digest, next *admit.Key) error {
	return f.change(ctx, func(keys admit.KeyMap) error {
		old, there := find(keys, id)
		if !there {
			return admit.ErrKeyNotFound
		}
		k := keys[old]
		if s := k.Status(time.Now()); s == admit.KeyRevoked || s == admit.KeyExpired {
			return sqlkeys.ErrNotValid
		}
		if err := add(keys, d, next); err != nil {
			return err
		}
		if k.ExpiresAt.IsZero() || k.ExpiresAt.After(until) {
			k.ExpiresAt = until
		}
		return nil
	})
}
