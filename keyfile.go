package admit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit/internal/filewatch"
	"github.com/admit-go/admit/internal/jsonfault"
)

// KeyFile is a KeyStore in a JSON file that holds digests, never tokens:
//
//	{"keys": [{"id": "k1", "owner": "ACME", "plan": "pro", "scopes": ["orders:write"],
//	           "digest": "9f86d081...", "expires_at": "2030-01-01T00:00:00Z"}]}
//
// The members are those of Key in snake_case; only id and digest are required. It is
// safe for concurrent use.
type KeyFile struct {
	path  string
	keys  atomic.Pointer[KeyMap]
	fault atomic.Pointer[error]
	watch *filewatch.Watch
}

// OpenKeyFile reads a key file, and follows it until Close: a change counts after a
// second or two, whether the file is replaced, written in place, or behind a symbolic
// link that now leads elsewhere. What it cannot take it reports whole, with line and
// column: what is not JSON, members that are unknown or of the wrong type, digests that
// are none, times that contradict each other, and an id or digest that is there twice.
func OpenKeyFile(path string) (*KeyFile, error) {
	v, err := filewatch.Read(path)
	if err != nil && !errors.Is(err, filewatch.ErrWrittenTo) { // whether it is whole shows below
		return nil, unreadable(err)
	}
	f := &KeyFile{path: path}
	if err := f.take(v.Text, nil); err != nil {
		return nil, err
	}
	f.watch = filewatch.Follow(path, v, filewatch.Config{Take: f.take, Report: f.report})
	return f, nil
}

// take replaces the keys, if there is a text and it can be taken.
func (f *KeyFile) take(text []byte, err error) error {
	if err != nil {
		return unreadable(err)
	}
	keys, err := parseKeyFile(f.path, text)
	if err != nil {
		return err
	}
	f.keys.Store(&keys)
	return nil
}

// report says what became of a change.
func (f *KeyFile) report(err error) {
	path := slog.String("path", f.path)
	if err == nil {
		f.fault.Store(nil)
		slog.Default().Info("admit: the key file has changed", path, slog.Int("keys", len(*f.keys.Load())))
		return
	}
	f.fault.Store(&err)
	slog.Default().Error("admit: the key file cannot be taken; the last good keys stay", path, slog.Any("error", err))
}

func unreadable(err error) error { return fmt.Errorf("admit: read the key file: %w", err) }

// LookupKey implements KeyStore.
func (f *KeyFile) LookupKey(ctx context.Context, d Digest) (*Key, error) {
	return f.keys.Load().LookupKey(ctx, d)
}

// Knows implements KeyKnower: it is always true.
func (f *KeyFile) Knows(Digest) bool { return true }

// Err returns nil while the keys are those of the file as it is. Once the file is
// gone, or has a version that cannot be taken, the last good keys stay, and Err says
// what is wrong; so does a line of slog.Default(), once for each such version.
func (f *KeyFile) Err() error {
	if err := f.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Close stops following the file. Keys are still found after it. It returns at once, or
// nearly so where the file system hangs; the goroutine ends when that lets go of it.
func (f *KeyFile) Close() error {
	f.watch.Close()
	return nil
}

// ReadKeyFile reads a key file once, for tools that change it: see OpenKeyFile for
// what it reports, and WriteKeyFile.
func ReadKeyFile(path string) (KeyMap, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(err)
	}
	return parseKeyFile(path, text)
}

// WriteKeyFile writes keys so that OpenKeyFile reads them back, ordered by id. The file
// is replaced as a whole, and only its owner may read it.
func WriteKeyFile(path string, keys KeyMap) error {
	file := keyFile{Keys: make([]keyRecord, 0, len(keys))}
	for d, k := range keys {
		file.Keys = append(file.Keys, recordOf(d, k))
	}
	slices.SortFunc(file.Keys, func(a, b keyRecord) int { return strings.Compare(a.ID, b.ID) })
	text, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("admit: write the key file: %w", err)
	}
	text = append(text, '\n')
	if _, err := parseKeyFile(path, text); err != nil {
		return err // what could not be read back is not written
	}
	if err := replaceFile(path, text); err != nil {
		return fmt.Errorf("admit: write the key file: %w", err)
	}
	return nil
}

// replaceFile writes beside the file, and renames: a reader sees the old or the new.
func replaceFile(path string, text []byte) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err = temp.Write(text); err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// keyFile and keyRecord are the file's form.
type keyFile struct {
	Keys []keyRecord `json:"keys"`
}

type keyRecord struct {
	ID        string            `json:"id"`
	Owner     string            `json:"owner,omitzero"`
	Plan      string            `json:"plan,omitzero"`
	Scopes    []string          `json:"scopes,omitempty"`
	Digest    string            `json:"digest"`
	NotBefore time.Time         `json:"not_before,omitzero"`
	ExpiresAt time.Time         `json:"expires_at,omitzero"`
	RevokedAt time.Time         `json:"revoked_at,omitzero"`
	Meta      map[string]string `json:"meta,omitempty"`
}

func recordOf(d Digest, k *Key) keyRecord {
	return keyRecord{
		ID: k.ID, Owner: k.Owner, Plan: k.Plan, Scopes: k.Scopes, Digest: d.String(),
		NotBefore: k.NotBefore, ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, Meta: k.Meta,
	}
}

func (r *keyRecord) key() *Key {
	return &Key{
		ID: r.ID, Owner: r.Owner, Plan: r.Plan, Scopes: r.Scopes,
		NotBefore: r.NotBefore, ExpiresAt: r.ExpiresAt, RevokedAt: r.RevokedAt, Meta: r.Meta,
	}
}

// maxKeyFaults bounds how many faults of one file are reported.
const maxKeyFaults = 20

func parseKeyFile(path string, text []byte) (KeyMap, error) {
	p := keyParser{path: path, text: text, keys: KeyMap{}, ids: map[string]int64{}, digests: map[Digest]int64{}}
	p.file()
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults...)
	}
	return p.keys, nil
}

type keyParser struct {
	path    string
	text    []byte
	in      *jsonfault.Reader
	keys    KeyMap
	ids     map[string]int64 // where each stands, as an offset
	digests map[Digest]int64
	faults  []error
}

// fault notes what is wrong at an offset of the text.
func (p *keyParser) fault(offset int64, format string, args ...any) {
	if len(p.faults) < maxKeyFaults {
		line, column := jsonfault.Position(p.text, offset)
		p.faults = append(p.faults, fmt.Errorf("admit: %s:%d:%d: %w", p.path, line, column, fmt.Errorf(format, args...)))
	}
}

// file reads record after record, so that each fault has its place.
func (p *keyParser) file() {
	p.in = jsonfault.NewReader(p.text)
	if err := p.members(); err != nil {
		offset, err := jsonfault.Syntax(p.text)
		p.faults = nil // the rest follows from it
		p.fault(offset, "not well-formed JSON: %w", err)
	}
}

// members reads the whole file. The error is one of syntax.
func (p *keyParser) members() error {
	if p.in.Peek() != '{' {
		p.fault(0, `must be an object with the member "keys"`)
		_, err := jsonfault.Syntax(p.text)
		return err
	}
	if err := p.in.Enter(); err != nil {
		return err
	}
	seen := false
	for p.in.More() {
		at := p.in.Next()
		name, err := p.in.Name()
		if err != nil {
			return err
		}
		if name != "keys" {
			p.fault(at, "the member %q is not known here", name)
			if err := p.in.Skip(); err != nil {
				return err
			}
			continue
		}
		if seen {
			p.fault(at, `"keys" is there twice`)
		}
		seen = true
		if p.in.Peek() != '[' {
			p.fault(p.in.Next(), `"keys" must be an array`)
			if err := p.in.Skip(); err != nil {
				return err
			}
			continue
		}
		if err := p.records(); err != nil {
			return err
		}
	}
	if !seen {
		p.fault(0, `the member "keys" is missing`)
	}
	if err := p.in.Leave(); err != nil {
		return err
	}
	if !p.in.AtEnd() {
		return errors.New("more after the end")
	}
	return nil
}

// records reads the array of keys. The error is one of syntax.
func (p *keyParser) records() error {
	if err := p.in.Enter(); err != nil {
		return err
	}
	for p.in.More() {
		if err := p.record(); err != nil {
			return err
		}
	}
	return p.in.Leave()
}

// record reads one key. The error is one of syntax.
func (p *keyParser) record() error {
	at := p.in.Next()
	var r keyRecord
	if err := p.in.Decode(&r); errors.Is(err, jsonfault.ErrSyntax) {
		return err
	} else if err != nil {
		for _, f := range jsonfault.Explain(p.text[at:p.in.End()], reflect.TypeFor[keyRecord]()) {
			p.fault(at+f.Offset, "%s", strings.TrimSpace(f.Path+" "+f.Message))
		}
		return nil
	}

	d, err := ParseDigest(r.Digest)
	if err != nil {
		p.fault(at, `the key %q: "digest" must be the SHA-256 of the token in 64 hexadecimal digits`, r.ID)
	}
	if r.ID == "" {
		p.fault(at, `a key needs an "id"`)
	}
	if !r.ExpiresAt.IsZero() && !r.NotBefore.Before(r.ExpiresAt) {
		p.fault(at, `the key %q expires before it is valid: "not_before" must be before "expires_at"`, r.ID)
	}
	if first, double := p.ids[r.ID]; double && r.ID != "" {
		line, _ := jsonfault.Position(p.text, first)
		p.fault(at, "the id %q is there twice, first in line %d", r.ID, line)
	}
	if first, double := p.digests[d]; double && err == nil {
		line, _ := jsonfault.Position(p.text, first)
		p.fault(at, "the digest of the key %q is there twice, first in line %d", r.ID, line)
	}
	p.ids[r.ID], p.digests[d] = at, at
	p.keys[d] = r.key()
	return nil
}
