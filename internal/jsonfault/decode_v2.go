//go:build goexperiment.jsonv2

package jsonfault

import (
	"encoding"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
)

// decoder uses encoding/json/jsontext and encoding/json/v2, as encoding/json does since Go 1.27.
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

// value stops at the first fault. For each value that does not fit, encoding/json makes an error
// with the whole path: a long name around many such values costs unbounded time and memory.
func (d decoder) value(v any) error {
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	if err = unmarshalToFirst(value, v); err == nil || !ofType(err) {
		return err
	}
	target := reflect.ValueOf(v).Elem()
	target.SetZero()
	x := explainer{in: cursor{text: value}, lax: true}
	if x.value(target.Type(), true); len(x.Faults) > 0 || x.Type != nil {
		return errInvalid
	}
	return unmarshalAll(value, v)
}

// ask decodes a text that is one value, to find out whether it fits. It is always strict.
func ask(text []byte, v any, _ bool) error {
	err := unmarshalToFirst(text, v)
	if err != nil && ofType(err) {
		reflect.ValueOf(v).Elem().SetZero()
		err = unmarshalAll(text, v)
	}
	return err
}

var errInvalid = errors.New("a value does not fit")

// isUnknown reports whether an error is about the name of a member.
func isUnknown(err error) bool {
	return errors.Is(err, errUnknownName) || err != nil && strings.HasPrefix(err.Error(), "json: unknown field ")
}

const (
	// unnamedDecodes: the methods of a type without a name are called also if no pointer leads to
	// the value.
	unnamedDecodes = true
	// breadthFirst: of two members that differ only in case, the less deep one counts.
	breadthFirst = true
)

// flattens reports whether an option of a tag puts the members of a field into its struct.
func flattens(options string) bool {
	return slices.ContainsFunc(strings.Split(options, ","), func(option string) bool {
		return option == "embed" || option == "inline" || option == "unknown"
	})
}

// formats reports whether an option of a tag changes how a value is written.
func formats(option string) bool { return strings.HasPrefix(option, "format:") }

// ofType reports whether an error is about the type, and not about the value. Stopping at the first
// fault has a price: what encoding/json forgives in a type is an error too, such as a tag without
// a meaning, or a struct without an exported field. For such a type, if the bounded explanation
// finds no fault, the text is decoded in the old way.
func ofType(err error) bool {
	var e *semanticError
	switch {
	case !errors.As(err, &e) || e.GoType == nil:
		return false
	case e.JSONKind == 0: // no value was read, except perhaps by a method
		return !reflect.PointerTo(e.GoType).Implements(reflect.TypeFor[unmarshalerFrom]())
	default:
		return e.GoType.Kind() == reflect.Struct && e.Err != nil && e.Err != errUnknownName && !decodesItself(e.GoType, true)
	}
}

// ownMethods are the methods by which a type decodes itself.
var ownMethods = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](), reflect.TypeFor[unmarshalerFrom]()}
