package keyinput

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/admit-go/admit"
)

const (
	// MaxLine bounds a line of an imported text, in bytes.
	MaxLine = 1 << 20
	// MaxFaults bounds how many faults are reported.
	MaxFaults = 20

	minToken = 16
	maxToken = 4096 // what an Auth accepts
)

// Row is a key of another system.
type Row struct {
	Line    int // of its beginning, from 1
	Digest  admit.Digest
	Key     *admit.Key
	Unnamed bool // it has no id
}

// Parse parses keys in JSON lines or a key file of admit (format json), or in CSV (csv). If
// format is empty, the first byte decides. Parse returns all rows, or an error that joins up to MaxFaults faults, each with
// the name of the text and the line. Errors never repeat a token, wherever it stands: they
// repeat neither values nor names that are long enough to be a token.
func Parse(r io.Reader, name, format string) ([]Row, error) {
	in := bufio.NewReader(r)
	if bom, _ := in.Peek(3); string(bom) == "\ufeff" {
		_, _ = in.Discard(3)
	}
	if bom, _ := in.Peek(2); string(bom) == "\xff\xfe" || string(bom) == "\xfe\xff" {
		return nil, fmt.Errorf("%s: the text is in UTF-16; save it as UTF-8", name)
	}
	first, err := firstByte(in)
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s: the text is empty", name)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case first == '[' && format != "csv":
		return nil, fmt.Errorf("%s: JSON lines have one object per line without an array around them: convert an array with jq -c '.[]'", name)
	case format == "" && first == '{':
		format = "json"
	case format == "":
		format = "csv"
	}
	p := &parser{name: name, ids: map[string]int{}, digests: map[admit.Digest]int{}}
	if format == "json" && isKeyFile(in) {
		text, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p.keyFile(text)
		return p.result()
	}
	lines := &lineReader{in: in, line: 1}
	if format == "json" {
		p.jsonLines(bufio.NewReaderSize(lines, 64<<10))
	} else {
		p.csv(lines)
	}
	return p.result()
}

func (p *parser) result() ([]Row, error) {
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults...)
	}
	return p.rows, nil
}

// firstByte returns the first byte in the buffer that is not white space, without reading it.
func firstByte(in *bufio.Reader) (byte, error) {
	for n := 1; n <= in.Size(); n++ {
		head, err := in.Peek(n)
		if len(head) < n {
			return 0, err
		}
		if c := head[n-1]; !bytes.ContainsRune([]byte(" \t\r\n"), rune(c)) {
			return c, nil
		}
	}
	return ' ', nil
}

type parser struct {
	name    string
	rows    []Row
	ids     map[string]int // the line of each
	digests map[admit.Digest]int
	faults  []error
}

func (p *parser) full() bool { return len(p.faults) >= MaxFaults }

// fault records a fault of a line.
func (p *parser) fault(line int, err error) {
	if p.full() {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			p.fault(line, e)
		}
		return
	}
	p.faults = append(p.faults, fmt.Errorf("%s:%d: %w", p.name, line, err))
}

// fields are the fields of a row before they are checked.
type fields struct {
	id, token, digest, owner, plan  string
	scopes, networks                []string
	limits                          []admit.Limit
	quotas                          []admit.Quota
	notBefore, expiresAt, revokedAt time.Time
	meta                            map[string]string
}

// row checks one key, also against those before it.
func (p *parser) row(line int, f *fields) {
	before := len(p.faults)
	fault := func(err error) {
		if err != nil {
			p.fault(line, err)
		}
	}
	k := &admit.Key{
		ID: f.id, Owner: f.owner, Plan: f.plan, Scopes: slices.Clone(f.scopes), Limits: f.limits, Quotas: f.quotas, Meta: maps.Clone(f.meta),
		NotBefore: f.notBefore.UTC(), ExpiresAt: f.expiresAt.UTC(), RevokedAt: f.revokedAt.UTC(),
	}
	d, err := digestOf(f.token, f.digest)
	fault(err)
	fault(CheckTexts(k))
	fault(CheckScopes(k.Scopes))
	fault(CheckLimits(k.Limits))
	fault(CheckQuotas(k.Quotas))
	fault(CheckTimes(k))
	for _, text := range f.networks {
		var n netip.Prefix
		n, e := ParseNetwork(text)
		fault(e)
		k.Networks = append(k.Networks, n)
	}
	if first, double := p.ids[k.ID]; double && k.ID != "" {
		fault(fmt.Errorf("the id is a duplicate of line %d", first))
	}
	if first, double := p.digests[d]; double && err == nil {
		fault(fmt.Errorf("the token or digest is a duplicate of line %d", first))
	}
	p.ids[k.ID] = line
	if err == nil {
		p.digests[d] = line
	}
	if len(p.faults) == before {
		p.rows = append(p.rows, Row{Line: line, Digest: d, Key: k, Unnamed: k.ID == ""})
	}
}

func digestOf(token, digest string) (admit.Digest, error) {
	switch {
	case token == "" && digest == "":
		return admit.Digest{}, errors.New("there is neither a token nor a digest")
	case token != "" && digest != "":
		return admit.Digest{}, errors.New("there are both a token and a digest: give only one of them")
	case digest != "":
		d, err := admit.ParseDigest(digest)
		if err != nil {
			err = errors.New("the digest is not the SHA-256 of the token in 64 hexadecimal digits")
		}
		return d, err
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return admit.Digest{}, errors.New("the token cannot be sent: it has characters other than visible ASCII")
	case len(token) > maxToken:
		return admit.Digest{}, fmt.Errorf("the token cannot be sent: it is longer than %d bytes", maxToken)
	case len(token) < minToken:
		return admit.Digest{}, fmt.Errorf("the token is shorter than %d characters, so it could be guessed from its SHA-256; mint a new key instead", minToken)
	}
	return admit.DigestOf(token), nil
}

// shown returns a name for an error, or a substitute if the name is long enough to be a token.
func shown(name string) string {
	if len(name) >= minToken || !utf8.ValidString(name) || strings.ContainsFunc(name, Unprintable) {
		return "one of its names"
	}
	return fmt.Sprintf("%q", name)
}

// errLongLine ends the parsing of a text.
type errLongLine struct{ line int }

func (e errLongLine) Error() string { return fmt.Sprintf("the line is longer than %d bytes", MaxLine) }

// lineReader reads a text until a line is too long.
type lineReader struct {
	in   io.Reader
	line int
	len  int // of the line so far
}

func (r *lineReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	for rest := b[:n]; len(rest) > 0; {
		line, after, ends := bytes.Cut(rest, []byte("\n"))
		if r.len += len(line); r.len > MaxLine {
			return 0, errLongLine{r.line}
		}
		if ends {
			r.line++
			r.len = 0
		}
		rest = after
	}
	return n, err
}
