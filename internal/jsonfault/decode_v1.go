//go:build !goexperiment.jsonv2

package jsonfault

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
)

// decoder stands on the encoding/json of Go 1.26 and before.
type decoder struct{ *json.Decoder }

func newDecoder(text []byte) decoder {
	d := decoder{json.NewDecoder(bytes.NewReader(text))}
	d.DisallowUnknownFields()
	return d
}

func (d decoder) offset() int64 { return d.InputOffset() }
func (d decoder) more() bool    { return d.More() }
func (d decoder) skip() error   { return d.Decode(&skipped{}) }

// token reads one token, and returns it if it is a string.
func (d decoder) token() (string, error) {
	token, err := d.Token()
	s, _ := token.(string)
	return s, err
}

// value goes on after a fault, which costs no more than the rest of the value.
func (d decoder) value(v any) error { return d.Decode(v) }

// ownMethods are those by which a type decodes itself.
var ownMethods = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}

// offsetBeyond is by how much json.SyntaxError.Offset lies beyond the first wrong byte.
const offsetBeyond = 1
