package jsontree

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/admit-go/admit/internal/jsonfault"
)

// Fault is what is wrong with a text, and where.
type Fault struct {
	Line, Column int // in bytes, from 1
	Reason       error
}

func (f *Fault) Error() string {
	return fmt.Sprintf("line %d, column %d: %v", f.Line, f.Column, f.Reason)
}

func (f *Fault) Unwrap() error { return f.Reason }

// Parse parses a text that is one value. The error is a *Fault: the text is not JSON (RFC 8259),
// is not UTF-8, or has an object with a duplicate name. A byte order mark is skipped.
func Parse(text []byte) (*Value, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	fault := func(at int, reason error) error {
		line, column := jsonfault.Position(text, int64(at))
		return &Fault{line, column, reason}
	}
	if at := invalidUTF8(text); at >= 0 {
		return nil, fault(at, errors.New("the text is not UTF-8"))
	}
	if len(bytes.TrimLeft(text, " \t\r\n")) == 0 {
		return nil, fault(0, errors.New("the text is empty"))
	}
	if at, err := jsonfault.Syntax(text); err != nil {
		return nil, fault(int(at), err)
	}
	p := parser{text: text, twiceAt: -1}
	v := p.value()
	if p.twiceAt >= 0 {
		return nil, fault(p.twiceAt, fmt.Errorf("the member %.100q is there twice in one object", p.twice))
	}
	return v, nil
}

func invalidUTF8(text []byte) int {
	if utf8.Valid(text) {
		return -1
	}
	for at := 0; ; {
		r, n := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && n <= 1 {
			return at
		}
		at += n
	}
}

// parser walks over a well-formed text, which is no deeper than encoding/json allows.
type parser struct {
	text    []byte
	at      int
	twice   string // the first duplicate name
	twiceAt int    // its offset; -1: there is none
}

// next returns the byte at which the next name, value or bracket begins.
func (p *parser) next() byte {
	for {
		switch b := p.text[p.at]; b {
		case ' ', '\t', '\r', '\n', ',', ':':
			p.at++
		default:
			return b
		}
	}
}

func (p *parser) value() *Value {
	switch kind := p.next(); kind {
	case '{':
		v := Object()
		for p.at++; p.next() != '}'; {
			at := p.at
			written := p.scalar()
			name := unquote(written)
			if _, found := v.index[name]; found && p.twiceAt < 0 {
				p.twice, p.twiceAt = name, at
			}
			v.index[name] = len(v.members)
			v.members = append(v.members, member{name, written, p.value()})
		}
		p.at++
		return v
	case '[':
		v := Array()
		for p.at++; p.next() != ']'; {
			v.Append(p.value())
		}
		p.at++
		return v
	}
	return &Value{written: p.scalar()}
}

// scalar reads a name or a scalar, and returns it.
func (p *parser) scalar() []byte {
	from := p.at
	if p.text[p.at] == '"' {
		for p.at++; p.text[p.at] != '"'; p.at++ {
			if p.text[p.at] == '\\' {
				p.at++
			}
		}
		p.at++
		return p.text[from:p.at:p.at]
	}
	for ; p.at < len(p.text); p.at++ {
		switch p.text[p.at] {
		case ' ', '\t', '\r', '\n', ',', ']', '}':
			return p.text[from:p.at:p.at]
		}
	}
	return p.text[from:p.at:p.at]
}
