package admit

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
)

// maxFields bounds how many faults of one body are listed.
const maxFields = 20

// explain lists what in body, which is one well-formed JSON value, does not fit into
// t. encoding/json has refused the body already, but tells the path of a fault only
// in part; explain walks both side by side, once, and asks it about each value alone.
func explain(body []byte, t reflect.Type) []fieldFault {
	x := explainer{body: body, dec: json.NewDecoder(bytes.NewReader(body))}
	x.value(t, "")
	if len(x.faults) == 0 {
		x.fault("", "invalid", "is not valid")
	}
	return x.faults
}

// fieldFault is a FieldError, and where in the body that begins which it is about.
type fieldFault struct {
	FieldError
	offset int64
}

type explainer struct {
	body   []byte
	dec    *json.Decoder
	at     int64 // where the name or value begins that is being read
	faults []fieldFault
}

func (x *explainer) fault(path, code, message string) {
	if len(x.faults) < maxFields {
		x.faults = append(x.faults, fieldFault{FieldError{Path: path, Code: code, Message: message}, x.at})
	}
}

// valueAt returns where the name or value after an offset begins.
func valueAt(text []byte, offset int64) int64 {
	rest := bytes.TrimLeft(text[offset:], " \t\r\n:,")
	return int64(len(text) - len(rest))
}

// value reads the next value of the body, which is at path and goes into a t.
func (x *explainer) value(t reflect.Type, path string) {
	x.at = valueAt(x.body, x.dec.InputOffset())
	for t.Kind() == reflect.Pointer && !decodesItself(t) {
		t = t.Elem()
	}
	switch kind := t.Kind(); {
	case decodesItself(t):
		x.leaf(t, path)
	case kind == reflect.Struct, kind == reflect.Map:
		x.object(t, path)
	case (kind == reflect.Slice || kind == reflect.Array) && t.Elem().Kind() != reflect.Uint8:
		x.array(t, path)
	default:
		x.leaf(t, path)
	}
}

func (x *explainer) object(t reflect.Type, path string) {
	if !x.opens('{', path, "must be an object") {
		return
	}
	for x.dec.More() {
		x.at = valueAt(x.body, x.dec.InputOffset())
		token, _ := x.dec.Token()
		name, _ := token.(string)
		at := name
		if path != "" {
			at = path + "." + name
		}
		if t.Kind() == reflect.Map {
			x.value(t.Elem(), at)
			continue
		}
		field, known := member(t, name)
		switch {
		case !known:
			x.fault(at, "unknown_member", "is not known here")
			x.skip()
		case field == nil:
			x.skip()
		default:
			x.value(field, at)
		}
	}
	_, _ = x.dec.Token()
}

func (x *explainer) array(t reflect.Type, path string) {
	if !x.opens('[', path, "must be an array") {
		return
	}
	for i := 0; x.dec.More(); i++ {
		x.value(t.Elem(), path+"["+strconv.Itoa(i)+"]")
	}
	_, _ = x.dec.Token()
}

// opens reads the beginning of an object or array. Null fits everywhere.
func (x *explainer) opens(want json.Delim, path, message string) bool {
	token, _ := x.dec.Token()
	if token == want {
		return true
	}
	if token != nil {
		x.fault(path, "wrong_type", message)
	}
	for depth := delta(token); depth > 0; { // the rest of a value of the other kind
		next, err := x.dec.Token()
		if err != nil {
			break
		}
		depth += delta(next)
	}
	return false
}

// delta is how a token changes the depth.
func delta(token json.Token) int {
	switch token {
	case json.Delim('{'), json.Delim('['):
		return 1
	case json.Delim('}'), json.Delim(']'):
		return -1
	}
	return 0
}

func (x *explainer) leaf(t reflect.Type, path string) {
	err := x.dec.Decode(reflect.New(t).Interface())
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &wrong) && !decodesItself(t):
		x.fault(path, "wrong_type", wants(t, wrong.Value))
	default: // its own UnmarshalJSON or UnmarshalText
		x.fault(path, "invalid", "is not valid")
	}
}

func (x *explainer) skip() {
	var ignored json.RawMessage
	_ = x.dec.Decode(&ignored)
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler)
}

// member finds the type of the member called name, as encoding/json does: the exact
// name first, then without regard to case. The type is nil where the value is written
// in another form (the option string).
func member(t reflect.Type, name string) (field reflect.Type, known bool) {
	exact := false
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("json")
		label, options, _ := strings.Cut(tag, ",")
		if !f.IsExported() || tag == "-" || f.Anonymous && label == "" {
			continue
		}
		if label == "" {
			label = f.Name
		}
		if label != name && (exact || !strings.EqualFold(label, name)) {
			continue
		}
		exact = exact || label == name
		field, known = f.Type, true
		if strings.Contains(options, "string") {
			field = nil
		}
	}
	return field, known
}

// wants says what a value must be, in the terms of JSON. got is what encoding/json
// calls the value, such as "string" or "number 300".
func wants(t reflect.Type, got string) string {
	number := strings.HasPrefix(got, "number ")
	switch t.Kind() {
	case reflect.Bool:
		return "must be true or false"
	case reflect.String:
		return "must be a string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if number && !strings.ContainsAny(got[len("number "):], ".eE") {
			return "is out of range"
		}
		return "must be an integer"
	case reflect.Float32, reflect.Float64:
		if number {
			return "is out of range"
		}
		return "must be a number"
	case reflect.Slice, reflect.Array:
		return "must be a string in base64"
	default:
		return "has the wrong type"
	}
}
