// Package jsonfault decodes JSON of clients, and reports exactly what does not fit into a Go type, and
// where. It adds to encoding/json the whole path of every fault, positions, and a bound on the
// cost of a rejection.
package jsonfault

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrSyntax is in the chain of each error about text that is not well-formed JSON.
var ErrSyntax = errors.New("not well-formed JSON")

// A Reader reads the values of a text one after another, and knows the offset of each.
type Reader struct {
	text []byte
	dec  decoder
}

// NewReader returns a Reader at the beginning of text, which must not change any more.
func NewReader(text []byte) *Reader {
	return &Reader{text: text, dec: newDecoder(text)}
}

// Next returns the offset at which the next name or value begins; at the end of an
// object or array, that of its bracket.
func (r *Reader) Next() int64 {
	rest := bytes.TrimLeft(r.text[r.End():], " \t\r\n:,")
	return int64(len(r.text) - len(rest))
}

// Peek returns the byte at Next, 0 at the end of the text.
func (r *Reader) Peek() byte {
	if at := r.Next(); at < int64(len(r.text)) {
		return r.text[at]
	}
	return 0
}

// End returns the offset at which what has been read ends.
func (r *Reader) End() int64 { return r.dec.offset() }

// AtEnd reports whether nothing but white space follows.
func (r *Reader) AtEnd() bool {
	return len(bytes.TrimLeft(r.text[r.End():], " \t\r\n")) == 0
}

// Decode reads the next value into v, a pointer to a zero value. It accepts what encoding/json accepts
// with DisallowUnknownFields. The error wraps ErrSyntax, or is about a value that has been read and
// does not fit. After an error, v is undefined.
func (r *Reader) Decode(v any) error {
	at := r.Next()
	err := r.dec.value(v)
	if err != nil && r.End() <= at {
		return syntax(err)
	}
	return err
}

// Skip reads the next value and drops it.
func (r *Reader) Skip() error { return syntax(r.dec.skip()) }

// Enter reads the opening bracket of an object or array, which must be next.
func (r *Reader) Enter() error { return r.token() }

// Leave reads the closing bracket once More is false.
func (r *Reader) Leave() error { return r.token() }

func (r *Reader) token() error {
	_, err := r.Name()
	return err
}

// Name reads the name of a member, which must be next.
func (r *Reader) Name() (string, error) {
	name, err := r.dec.token()
	return name, syntax(err)
}

// More reports whether the object or array has another member or element.
func (r *Reader) More() bool { return r.dec.more() }

func syntax(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrSyntax, err)
}
