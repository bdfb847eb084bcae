package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/gofrs/flock"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/cmd/admit/internal/keyinput"
	"github.com/admit-go/admit/internal/filereplace"
	"github.com/admit-go/admit/sqlkeys"
)

// file is a key file. Each change is made under a lock, and replaces the file.
type file struct{ path string }

func openFile(path string) (store, error) {
	path, err := filereplace.Target(path) // the lock file stands next to the target
	if err != nil {
		return nil, err
	}
	return &file{path}, nil
}

func (f *file) Close() error { return nil }

func (f *file) Now(context.Context) (time.Time, error) { return time.Now(), nil }

// change lets one process at a time read the keys, change them, and write them. It leaves the
// lock file, since removing it would let two processes in.
func (f *file) change(ctx context.Context, do func(keys admit.KeyMap) error) error {
	lock := flock.New(f.path+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	defer lock.Close()
	if err := shareLock(lock.Path(), f.path); err != nil {
		return err
	}
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

// shareLock gives the lock file the owner and mode of the key file. Otherwise a change by root
// would lock out the users that may write the keys.
func shareLock(lock, keys string) error {
	l, err := os.OpenFile(lock, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer l.Close()
	return filereplace.Like(l, keys)
}

func (f *file) Insert(ctx context.Context, d admit.Digest, k *admit.Key) error {
	return f.change(ctx, func(keys admit.KeyMap) error { return add(keys, d, k) })
}

func add(keys admit.KeyMap, d admit.Digest, k *admit.Key) error {
	if _, there := find(keys, k.ID); there || keys[d] != nil {
		return sqlkeys.ErrExists
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

func (f *file) Update(ctx context.Context, id string, change func(*admit.Key) error) (*sqlkeys.Record, error) {
	var r *sqlkeys.Record
	err := f.change(ctx, func(keys admit.KeyMap) error {
		d, there := find(keys, id)
		if !there {
			return admit.ErrKeyNotFound
		}
		if err := change(keys[d]); err != nil {
			return err
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

// Import is one change, however many keys there are. If no key is new, nothing is written.
func (f *file) Import(ctx context.Context, rows []keyinput.Row) (tally, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var t tally
	err := f.change(ctx, func(keys admit.KeyMap) error {
		ids := make(map[string]admit.Digest, len(keys))
		for d, k := range keys {
			ids[k.ID] = d
		}
		for _, row := range rows {
			owner, known := keys[row.Digest]
			_, taken := ids[row.Key.ID]
			switch {
			case known && (row.Unnamed || owner.ID == row.Key.ID):
				t.there++
			case known:
				t.conflict(row, "its token belongs to the key "+clean(owner.ID))
			case taken:
				t.conflict(row, "a key with this id has another token")
			default:
				keys[row.Digest], ids[row.Key.ID] = row.Key, row.Digest
				t.imported++
			}
		}
		if t.imported == 0 {
			return errNoChange
		}
		return nil
	})
	if errors.Is(err, errNoChange) {
		return t, nil
	}
	if err != nil {
		return tally{}, err // nothing is written
	}
	return t, nil
}

var errNoChange = errors.New("nothing to write")
