//go:build !goexperiment.jsonv2

package jsonfault

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
)

// decoder uses the encoding/json of Go 1.26 and before.
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

// value goes on after a fault, which costs only the rest of the value.
func (d decoder) value(v any) error { return d.Decode(v) }

// ask decodes a text that is one value, to find out whether it fits. If strict, unknown members do
// not fit.
func ask(text []byte, v any, strict bool) error {
	if strict {
		return newDecoder(text).value(v)
	}
	return json.Unmarshal(text, v)
}

// isUnknown reports whether an error is about the name of a member.
func isUnknown(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "json: unknown field ")
}

// ownMethods are the methods by which a type decodes itself.
var ownMethods = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}

// unmarshalerFrom is a method that encoding/json does not have yet.
type unmarshalerFrom interface{ noSuchMethod() }

const (
	// unnamedDecodes: the methods of a type without a name are called also if no pointer leads to
	// the value.
	unnamedDecodes = false
	// breadthFirst: of two members that differ only in case, the less deep one counts.
	breadthFirst = false
)

// flattens reports whether an option of a tag puts the members of a field into its struct.
func flattens(string) bool { return false }

// formats reports whether an option of a tag changes how a value is written.
func formats(string) bool { return false }

// offsetBeyond is how far json.SyntaxError.Offset is beyond the first wrong byte.
const offsetBeyond = 1
