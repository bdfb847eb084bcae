//go:build goexperiment.jsonv2

package jsonfault

import (
	"encoding"
	"encoding/json"
	"errors"
	"reflect"
)

// decoder stands on encoding/json/jsontext and encoding/json/v2, as encoding/json does
// since Go 1.27.
type decoder struct{ *tokens }

func newDecoder(text []byte) decoder { return decoder{newTokens(text)} }

func (d decoder) offset() int64 { return d.InputOffset() }
func (d decoder) skip() error   { return d.SkipValue() }

func (d decoder) more() bool {
	kind := d.PeekKind()
	return kind != 0 && kind != '}' && kind != ']'
}

// token reads one token, and returns it if it is a string.
func (d decoder) token() (string, error) {
	token, err := d.ReadToken()
	if err != nil || token.Kind() != '"' {
		return "", err
	}
	return token.String(), nil
}

// value stops at the first fault. encoding/json makes an error with the whole path for
// each value that does not fit: one long name around many of them costs time and memory
// without a bound.
func (d decoder) value(v any) error {
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	if err = unmarshalToFirst(value, v); err == nil || !ofType(err) {
		return err
	}
	reflect.ValueOf(v).Elem().SetZero()
	return unmarshalAll(value, v)
}

// ofType reports whether an error is about the type, and not about the value. To stop
// at the first fault has a price: what encoding/json forgives in a type is an error too,
// such as a tag that means nothing, or a struct without an exported field. So what such
// a type takes is found out in the old way, which has no bound.
func ofType(err error) bool {
	var e *semanticError
	switch {
	case !errors.As(err, &e) || e.GoType == nil:
		return false
	case e.JSONKind == 0: // no value was looked at, except perhaps by a method
		return !reflect.PointerTo(e.GoType).Implements(unmarshalerFrom)
	default:
		return e.GoType.Kind() == reflect.Struct && e.Err != nil && e.Err != errUnknownName && !decodesItself(e.GoType)
	}
}

// ownMethods are those by which a type decodes itself.
var ownMethods = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](), unmarshalerFrom}
