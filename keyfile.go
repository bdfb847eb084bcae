package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/admit-go/admit/internal/filereplace"
	"github.com/admit-go/admit/internal/filewatch"
	"github.com/admit-go/admit/internal/jsonfault"
	"github.com/admit-go/admit/internal/keyform"
)

// KeyFile is a KeyStore that reads a JSON file. The file has digests, never tokens:
//
//	{"format": 2,
//	 "keys": [{"id": "k1", "owner": "ACME", "plan": "pro", "scopes": ["orders:write"],
//	           "networks": ["192.0.2.0/24", "2001:db8::/32"],
//	           "limits": [{"name": "minute", "requests": 1000, "per": "1m", "burst": 100}],
//	           "quotas": [{"name": "month", "requests": 20000, "every": "month", "soft": true}],
//	           "digest": "9f86d081...", "expires_at": "2030-01-01T00:00:00Z"}]}
//
// The members are those of Key in snake_case. Only id and digest are required. A network has
// no host bits, and an IPv4 network is not written as IPv6. A limit needs requests and per,
// which is a duration as time.ParseDuration reads it. A quota needs requests and every, which
// is day, week or month. A file without format has format 1, which is read in the same way:
// format 2 tells older releases that keys may have networks, limits and quotas.
//
// A KeyFile is safe for concurrent use.
type KeyFile struct {
	path  string
	keys  atomic.Pointer[KeyMap]
	fault atomic.Pointer[error]
	watch *filewatch.Watch
}

// OpenKeyFile reads a key file and follows it until Close. A change takes effect after a second
// or two, whether the file is replaced, written in place, or behind a symbolic link that now
// leads elsewhere. A change in place that keeps the length and the modification time takes
// effect after a minute.
//
// An invalid file is rejected as a whole. The error gives the line and column of each problem:
// text that is not JSON in UTF-8, members that are unknown, duplicate or of the wrong type,
// malformed digests, contradictory times, invalid networks, limits and quotas, and an id or
// digest that is there twice.
//
// In a container, mount the directory of the file. A single file that is mounted (docker -v
// ./keys.json:/keys.json, subPath of Kubernetes) stays the old one, since a change replaces the
// file.
//
// A file of a later format is read as well, and its unknown members are ignored. But a record
// is rejected, with a line of slog.Default(), if its member "critical" lists an unknown member
// (as "crit" of RFC 7515 §4.1.11 does): that key is not found, and the other keys are.
func OpenKeyFile(path string) (*KeyFile, error) {
	v, err := filewatch.Read(path)
	if err != nil && !errors.Is(err, filewatch.ErrWrittenTo) { // the parser tells whether it is whole
		return nil, unreadable(err)
	}
	f := &KeyFile{path: path}
	if err := f.take(v.Text, nil); err != nil {
		return nil, err
	}
	f.watch = filewatch.Follow(path, v, filewatch.Config{Take: f.take, Report: f.report})
	return f, nil
}

// take replaces the keys if the text can be read.
func (f *KeyFile) take(text []byte, err error) error {
	if err != nil {
		return unreadable(err)
	}
	p := newKeyParser(f.path, text)
	p.later = true
	keys, err := p.parse()
	if err != nil {
		return err
	}
	f.keys.Store(&keys)
	path := slog.String("path", f.path)
	for _, r := range p.refused {
		slog.Default().Error("admit: a key is rejected: its record has a critical member that only a newer release of admit knows",
			path, slog.Int("line", r.line), slog.String("admit.key.id", r.id), slog.String("member", r.member))
	}
	if p.refusedMore > 0 {
		slog.Default().Error("admit: more keys are rejected for the same reason", path, slog.Int("keys", p.refusedMore))
	}
	return nil
}

// report logs the result of a change.
func (f *KeyFile) report(err error) {
	path := slog.String("path", f.path)
	if err == nil {
		f.fault.Store(nil)
		slog.Default().Info("admit: the key file has changed", path, slog.Int("keys", len(*f.keys.Load())))
		return
	}
	f.fault.Store(&err)
	slog.Default().Error("admit: the key file cannot be used; the last good keys stay in use", path, slog.Any("error", err))
}

func unreadable(err error) error { return fmt.Errorf("admit: read the key file: %w", err) }

// LookupKey implements KeyStore.
func (f *KeyFile) LookupKey(ctx context.Context, d Digest) (*Key, error) {
	return f.keys.Load().LookupKey(ctx, d)
}

// Knows implements KeyKnower. It is always true, since a KeyFile has all keys in memory.
func (f *KeyFile) Knows(Digest) bool { return true }

// Err returns nil while the keys are those of the current file. If the file is gone or invalid,
// the last good keys stay in use, and Err says what is wrong. A line of slog.Default() says it
// too, once for each such version.
func (f *KeyFile) Err() error {
	if err := f.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Close stops following the file. LookupKey still finds the keys. Close returns at once, or
// nearly so if the file system hangs; the goroutine then ends when the file system answers.
func (f *KeyFile) Close() error {
	f.watch.Close()
	return nil
}

// ReadKeyFile reads a key file once, for tools that change it with WriteKeyFile, one at a time.
// See OpenKeyFile for what it rejects. The error is fs.ErrNotExist if there is no file. A file
// of a later format is rejected, since something would be lost when it is written back.
func ReadKeyFile(path string) (KeyMap, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(err)
	}
	return newKeyParser(path, text).parse()
}

// WriteKeyFile writes keys so that OpenKeyFile reads them back, ordered by id. The file is
// replaced as a whole. If path is a symbolic link, the file that it leads to is replaced, which
// must exist. The file keeps its owner, group and permissions; if they cannot be kept, nothing
// is replaced. A new file is readable only for its owner. The format is 2 if a key has
// Networks, Limits or Quotas, else 1, which earlier releases read too.
func WriteKeyFile(path string, keys KeyMap) error {
	file := keyFile{Keys: make([]keyRecord, 0, len(keys))}
	for d, k := range keys {
		file.Keys = append(file.Keys, recordOf(d, k))
		if len(k.Networks) > 0 || len(k.Limits) > 0 || len(k.Quotas) > 0 {
			file.Format = 2
		}
	}
	slices.SortFunc(file.Keys, func(a, b keyRecord) int { return strings.Compare(a.ID, b.ID) })
	text, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("admit: write the key file: %w", err)
	}
	text = append(text, '\n')
	if _, err := newKeyParser(path, text).parse(); err != nil {
		return fmt.Errorf("admit: %s is not written, because it could not be read back: %w", path, err)
	}
	if err := filereplace.With(path, text); err != nil {
		return fmt.Errorf("admit: write the key file: %w", err)
	}
	return nil
}

// keyFormat is the latest format of key files that this release knows.
const keyFormat = 2

// keyFile and keyRecord are the form of the file. What is not set is not written, so that older
// releases can read the rest.
type keyFile struct {
	Format int         `json:"format,omitzero"`
	Keys   []keyRecord `json:"keys"`
}

type keyRecord struct {
	ID        string            `json:"id"`
	Owner     string            `json:"owner,omitzero"`
	Plan      string            `json:"plan,omitzero"`
	Scopes    []string          `json:"scopes,omitempty"`
	Networks  []netip.Prefix    `json:"networks,omitempty"`
	Limits    []keyform.Limit   `json:"limits,omitempty"`
	Quotas    []keyQuota        `json:"quotas,omitempty"`
	Digest    string            `json:"digest"`
	NotBefore time.Time         `json:"not_before,omitzero"`
	ExpiresAt time.Time         `json:"expires_at,omitzero"`
	RevokedAt time.Time         `json:"revoked_at,omitzero"`
	Meta      map[string]string `json:"meta,omitempty"`
}

type keyQuota = keyform.Quota[Period]

func recordOf(d Digest, k *Key) keyRecord {
	r := keyRecord{
		ID: k.ID, Owner: k.Owner, Plan: k.Plan, Scopes: k.Scopes, Networks: k.Networks, Digest: d.String(),
		NotBefore: k.NotBefore, ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, Meta: k.Meta,
	}
	for _, l := range k.Limits {
		r.Limits = append(r.Limits, keyform.Limit{Name: l.Name, Requests: l.Requests, Per: keyform.FormatPer(l.Per), Burst: l.Burst})
	}
	for _, q := range k.Quotas {
		r.Quotas = append(r.Quotas, keyQuota(q))
	}
	return r
}

// maxKeyFaults bounds how many problems of one file are reported, and how many rejected records
// are named.
const maxKeyFaults = 20

type keyParser struct {
	path  string
	text  []byte
	later bool // read files of a later format than keyFormat too

	in          *jsonfault.Reader
	format      int
	keys        KeyMap
	ids         map[string]int64 // the offset of each
	digests     map[Digest]int64
	refused     []refusedKey
	refusedMore int
	faults      []error
}

// refusedKey is a record with a critical member that is unknown.
type refusedKey struct {
	line       int
	id, member string
}

func newKeyParser(path string, text []byte) *keyParser {
	// Editors on Windows write a byte order mark.
	return &keyParser{path: path, text: bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), format: 1}
}

// parse reads record after record, so that each problem has a line and column.
func (p *keyParser) parse() (KeyMap, error) {
	if !p.isUTF8() {
		return nil, errors.Join(p.faults...)
	}
	err := p.file()
	if errors.Is(err, errLaterFormat) && p.later {
		err = p.file() // again: what comes before the format was read as an earlier one
	}
	if err != nil && !errors.Is(err, errLaterFormat) {
		offset, err := jsonfault.Syntax(p.text)
		p.faults = nil // the others follow from this one
		p.fault(offset, "not well-formed JSON: %w", err)
	}
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults...)
	}
	return p.keys, nil
}

// isUTF8 notes where the text is in another encoding (RFC 8259 §8.1). encoding/json would
// replace what it cannot read, and a tool that writes the keys back would lose it.
func (p *keyParser) isUTF8() bool {
	for _, begin := range []string{"\xff\xfe", "\xfe\xff", "{\x00", "\x00{"} {
		if bytes.HasPrefix(p.text, []byte(begin)) {
			p.fault(0, "the file is in UTF-16; save it as UTF-8 (PowerShell: -Encoding utf8)")
			return false
		}
	}
	if utf8.Valid(p.text) {
		return true
	}
	at := 0
	for {
		r, size := utf8.DecodeRune(p.text[at:])
		if r == utf8.RuneError && size == 1 {
			p.fault(int64(at), "the file is not in UTF-8 from here on; save it as UTF-8")
			return false
		}
		at += size
	}
}

// errLaterFormat ends the reading of a file as one of an earlier format.
var errLaterFormat = errors.New("of a later format")

// fault notes a problem at an offset of the text.
func (p *keyParser) fault(offset int64, format string, args ...any) {
	if len(p.faults) < maxKeyFaults {
		line, column := jsonfault.Position(p.text, offset)
		p.faults = append(p.faults, fmt.Errorf("admit: %s:%d:%d: %w", p.path, line, column, fmt.Errorf(format, args...)))
	}
}

// file reads the whole file. The error is errLaterFormat or one of syntax.
func (p *keyParser) file() error {
	p.in = jsonfault.NewReader(p.text)
	p.keys, p.ids, p.digests = KeyMap{}, map[string]int64{}, map[Digest]int64{}
	p.refused, p.refusedMore, p.faults = nil, 0, nil
	if p.in.Peek() != '{' {
		p.fault(0, `must be an object with the member "keys"`)
		_, err := jsonfault.Syntax(p.text)
		return err
	}
	if err := p.in.Enter(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.in.More() {
		at := p.in.Next()
		name, err := p.in.Name()
		if err != nil {
			return err
		}
		known := name == "format" || name == "keys"
		if known && seen[name] {
			p.fault(at, "%q is there twice", name)
		}
		seen[name] = true
		switch {
		case name == "keys":
			err = p.array(`"keys"`, func(int) error { return p.record() })
		case name == "format":
			err = p.formatOf(name)
		default:
			if p.format <= keyFormat {
				p.fault(at, "%q is not a known member", name)
			}
			err = p.in.Skip()
		}
		if err != nil {
			return err
		}
	}
	if !seen["keys"] {
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

// formatOf reads the format. The error is errLaterFormat or one of syntax.
func (p *keyParser) formatOf(name string) error {
	at, faults := p.in.Next(), len(p.faults)
	format := 0
	switch err := p.value(name, &format); {
	case err != nil || len(p.faults) > faults:
		return err
	case format < 1:
		p.fault(at, "format must be 1 or more")
	case format > keyFormat && !p.later:
		p.faults = nil // they come from the later format
		p.fault(at, "the file has format %d, of a newer release of admit; this release writes formats up to %d and would lose data: use the newer release", format, keyFormat)
		return errLaterFormat
	case format > keyFormat && p.format <= keyFormat:
		p.format = format
		return errLaterFormat
	}
	return nil
}

// record reads one key. The error is one of syntax.
func (p *keyParser) record() error {
	at := p.in.Next()
	k := &Key{}
	var digest string
	var critical []string
	faults := len(p.faults)
	known := func(name string) any {
		switch name {
		case "id":
			return &k.ID
		case "owner":
			return &k.Owner
		case "plan":
			return &k.Plan
		case "scopes":
			return &k.Scopes
		case "networks":
			return func(path string) error { return p.networks(path, k) }
		case "limits":
			return func(path string) error { return p.limits(path, k) }
		case "quotas":
			return func(path string) error { return p.quotas(path, k) }
		case "digest":
			return &digest
		case "not_before":
			return &k.NotBefore
		case "expires_at":
			return &k.ExpiresAt
		case "revoked_at":
			return &k.RevokedAt
		case "meta":
			return func(path string) error { return p.meta(path, k) }
		case "critical":
			if p.format > keyFormat {
				return &critical
			}
		}
		return nil
	}
	if err := p.object("", strings.ToLower, known); err != nil || len(p.faults) > faults {
		return err
	}
	for _, name := range critical {
		if known(strings.ToLower(name)) == nil {
			p.refuse(at, k.ID, name)
			return nil
		}
	}

	d, err := ParseDigest(digest)
	if err != nil {
		p.fault(at, `the key %q: "digest" must be the SHA-256 of the token in 64 hexadecimal digits`, k.ID)
	}
	if k.ID == "" {
		p.fault(at, `a key needs an "id"`)
	}
	if !k.ExpiresAt.IsZero() && !k.NotBefore.Before(k.ExpiresAt) {
		p.fault(at, `the key %q expires before it is valid: "not_before" must be before "expires_at"`, k.ID)
	}
	if first, double := p.ids[k.ID]; double && k.ID != "" {
		p.fault(at, "the id %q is there twice, first in line %d", k.ID, p.line(first))
	}
	if first, double := p.digests[d]; double && err == nil {
		p.fault(at, "the digest of the key %q is there twice, first in line %d", k.ID, p.line(first))
	}
	p.ids[k.ID], p.digests[d] = at, at
	p.keys[d] = k
	return nil
}

// refuse leaves out a record.
func (p *keyParser) refuse(at int64, id, member string) {
	if len(p.refused) == maxKeyFaults {
		p.refusedMore++
		return
	}
	p.refused = append(p.refused, refusedKey{p.line(at), id, member})
}

// networks reads the networks of a key. The error is one of syntax.
func (p *keyParser) networks(path string, k *Key) error {
	return p.arrayOrNull(path, func(i int) error {
		at, path := p.in.Next(), fmt.Sprintf("%s[%d]", path, i)
		var text string
		faults := len(p.faults)
		if err := p.value(path, &text); err != nil || len(p.faults) > faults {
			return err
		}
		n, err := keyform.ParseNetwork(text)
		if err != nil {
			p.fault(at, "%s: %w", path, err)
		}
		k.Networks = append(k.Networks, n)
		return nil
	})
}

// limits reads the limits of a key. The error is one of syntax.
func (p *keyParser) limits(path string, k *Key) error {
	at, before := p.in.Next(), len(p.faults)
	err := p.arrayOrNull(path, func(i int) error {
		at, path := p.in.Next(), fmt.Sprintf("%s[%d]", path, i)
		var l keyform.Limit
		faults := len(p.faults)
		err := p.object(path, strings.ToLower, func(name string) any {
			switch name {
			case "name":
				return &l.Name
			case "requests":
				return &l.Requests
			case "per":
				return &l.Per
			case "burst":
				return &l.Burst
			}
			return nil
		})
		if err != nil || len(p.faults) > faults {
			return err
		}
		per, err := keyform.ParsePer(l.Per)
		if err != nil {
			p.fault(at, "%s.per: %w", path, err)
		}
		k.Limits = append(k.Limits, Limit{Name: l.Name, Requests: l.Requests, Per: per, Burst: l.Burst})
		return nil
	})
	if err != nil || len(p.faults) > before {
		return err
	}
	p.meaningless(at, path, checkLimits(k.Limits))
	return nil
}

// quotas reads the quotas of a key. The error is one of syntax.
func (p *keyParser) quotas(path string, k *Key) error {
	at, before := p.in.Next(), len(p.faults)
	err := p.arrayOrNull(path, func(i int) error {
		at, path := p.in.Next(), fmt.Sprintf("%s[%d]", path, i)
		var q keyQuota
		var every string
		faults := len(p.faults)
		err := p.object(path, strings.ToLower, func(name string) any {
			switch name {
			case "name":
				return &q.Name
			case "requests":
				return &q.Requests
			case "every":
				return &every
			case "soft":
				return &q.Soft
			}
			return nil
		})
		if err != nil || len(p.faults) > faults {
			return err
		}
		if err := q.Every.UnmarshalText([]byte(every)); err != nil {
			p.fault(at, "%s.every: %s", path, strings.TrimPrefix(err.Error(), "admit: "))
		}
		k.Quotas = append(k.Quotas, Quota(q))
		return nil
	})
	if err != nil || len(p.faults) > before {
		return err
	}
	p.meaningless(at, path, checkQuotas(k.Quotas))
	return nil
}

// meaningless notes the problems of values that have the right form.
func (p *keyParser) meaningless(at int64, path string, err error) {
	var f faults
	f.within(path, err)
	for _, err := range f {
		p.fault(at, "%s", strings.TrimPrefix(err.Error(), "admit: "))
	}
}

// meta reads the Meta of a key. The error is one of syntax.
func (p *keyParser) meta(path string, k *Key) error {
	if p.in.Peek() == 'n' {
		return p.in.Skip()
	}
	k.Meta = map[string]string{}
	asWritten := func(name string) string { return name }
	return p.object(path, asWritten, func(name string) any {
		return func(path string) error {
			var text string
			err := p.value(path, &text)
			k.Meta[name] = text
			return err
		}
	})
}

// object reads the members of an object. The function of returns the place for the value of a
// name, or a function that reads it, or nil for an unknown name. Names that fold to the same
// string are one name. The error is one of syntax.
func (p *keyParser) object(path string, fold func(string) string, of func(name string) any) error {
	if p.in.Peek() != '{' {
		p.fault(p.in.Next(), "%s", strings.TrimSpace(path+" must be an object"))
		return p.in.Skip()
	}
	if err := p.in.Enter(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.in.More() {
		at := p.in.Next()
		written, err := p.in.Name()
		if err != nil {
			return err
		}
		name, inside := fold(written), written
		if path != "" {
			inside = path + "." + written
		}
		into := of(name)
		switch {
		case into != nil && seen[name]:
			p.fault(at, "%s is there twice", clip(inside))
		case into == nil && p.format <= keyFormat:
			p.fault(at, "%s is not a known member", clip(inside))
		}
		switch into := into.(type) {
		case nil:
			err = p.in.Skip()
		case func(string) error:
			err = into(inside)
		default:
			err = p.value(inside, into)
		}
		if err != nil {
			return err
		}
		seen[name] = true
	}
	return p.in.Leave()
}

// array calls each for the elements of an array. The error is one of syntax.
func (p *keyParser) array(path string, each func(i int) error) error {
	if p.in.Peek() != '[' {
		p.fault(p.in.Next(), "%s must be an array", path)
		return p.in.Skip()
	}
	if err := p.in.Enter(); err != nil {
		return err
	}
	for i := 0; p.in.More(); i++ {
		if err := each(i); err != nil {
			return err
		}
	}
	return p.in.Leave()
}

// arrayOrNull is array for a member that may also be null.
func (p *keyParser) arrayOrNull(path string, each func(i int) error) error {
	if p.in.Peek() == 'n' {
		return p.in.Skip()
	}
	return p.array(path, each)
}

// value reads a value. The error is one of syntax.
func (p *keyParser) value(path string, into any) error {
	at := p.in.Next()
	err := p.in.Decode(into)
	if err == nil || errors.Is(err, jsonfault.ErrSyntax) {
		return err
	}
	for _, f := range jsonfault.Explain(p.text[at:p.in.End()], reflect.TypeOf(into).Elem()).Faults {
		p.fault(at+f.Offset, "%s%s %s", clip(path), f.Path, f.Message)
	}
	return nil
}

// line returns the line of an offset, or 0 if it will not be reported: counting takes time.
func (p *keyParser) line(offset int64) int {
	if len(p.faults) >= maxKeyFaults {
		return 0
	}
	line, _ := jsonfault.Position(p.text, offset)
	return line
}

// clip bounds the length of a path in a message.
func clip(path string) string {
	if len(path) > jsonfault.MaxPath {
		return path[:jsonfault.MaxPath] + "..."
	}
	return path
}
