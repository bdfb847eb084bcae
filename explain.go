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

const (
	maxFields = 20  // faults of one body that are listed
	maxPath   = 256 // bytes of a path
)

// explain lists what in body, which is one well-formed JSON value, does not fit into
// t. encoding/json has refused the body already, but tells the path of a fault only
// in part; explain walks both side by side, once, and asks it about each value alone.
func explain(body []byte, t reflect.Type) []fieldFault {
	x := explainer{body: body, dec: json.NewDecoder(bytes.NewReader(body)), members: map[reflect.Type][]member{}}
	x.value(t)
	if len(x.faults) == 0 {
		x.fault("invalid", "is not valid")
	}
	return x.faults
}

// fieldFault is a FieldError, and where in the body that begins which it is about.
type fieldFault struct {
	FieldError
	offset int64
}

type explainer struct {
	body    []byte
	dec     *json.Decoder
	at      int64 // where the name or value begins that is being read
	path    []step
	members map[reflect.Type][]member
	faults  []fieldFault
}

// step is one step of a path: the name of a member, or an index.
type step struct {
	name  string
	index int // -1: name
}

func (x *explainer) full() bool { return len(x.faults) >= maxFields }

// fault is the only place where a path is written out: most values are as they should.
func (x *explainer) fault(code, message string) {
	var path []byte
	for _, s := range x.path {
		switch {
		case s.index >= 0:
			path = append(strconv.AppendInt(append(path, '['), int64(s.index), 10), ']')
		case len(path) > 0:
			path = append(append(path, '.'), s.name...)
		default:
			path = append(path, s.name...)
		}
		if len(path) > maxPath {
			path = append(path[:maxPath], "..."...)
			break
		}
	}
	x.faults = append(x.faults, fieldFault{FieldError{Path: string(path), Code: code, Message: message}, x.at})
}

// valueAt returns where the name or value after an offset begins.
func valueAt(text []byte, offset int64) int64 {
	rest := bytes.TrimLeft(text[offset:], " \t\r\n:,")
	return int64(len(text) - len(rest))
}

// value reads the next value of the body, which goes into a t.
func (x *explainer) value(t reflect.Type) {
	x.at = valueAt(x.body, x.dec.InputOffset())
	for t.Kind() == reflect.Pointer && !decodesItself(t) {
		t = t.Elem()
	}
	switch kind := t.Kind(); {
	case decodesItself(t):
		x.leaf(t)
	case kind == reflect.Struct, kind == reflect.Map:
		x.object(t)
	case (kind == reflect.Slice || kind == reflect.Array) && t.Elem().Kind() != reflect.Uint8:
		x.array(t)
	default:
		x.leaf(t)
	}
}

func (x *explainer) object(t reflect.Type) {
	if !x.opens('{', "must be an object") {
		return
	}
	last := len(x.path)
	x.path = append(x.path, step{index: -1})
	for x.dec.More() && !x.full() {
		x.at = valueAt(x.body, x.dec.InputOffset())
		token, _ := x.dec.Token()
		x.path[last].name, _ = token.(string)
		if t.Kind() == reflect.Map {
			x.value(t.Elem())
			continue
		}
		field, known := x.member(t, x.path[last].name)
		switch {
		case !known:
			x.fault("unknown_member", "is not known here")
			x.skip()
		case field == nil:
			x.skip()
		default:
			x.value(field)
		}
	}
	x.path = x.path[:last]
	_, _ = x.dec.Token()
}

func (x *explainer) array(t reflect.Type) {
	if !x.opens('[', "must be an array") {
		return
	}
	last := len(x.path)
	x.path = append(x.path, step{})
	for ; x.dec.More() && !x.full(); x.path[last].index++ {
		x.value(t.Elem())
	}
	x.path = x.path[:last]
	_, _ = x.dec.Token()
}

// opens reads the beginning of an object or array. Null fits everywhere.
func (x *explainer) opens(want json.Delim, message string) bool {
	token, _ := x.dec.Token()
	if token == want {
		return true
	}
	if token != nil {
		x.fault("wrong_type", message)
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

func (x *explainer) leaf(t reflect.Type) {
	err := x.dec.Decode(reflect.New(t).Interface())
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &wrong) && !decodesItself(t):
		x.fault("wrong_type", wants(t, wrong.Value))
	default: // its own UnmarshalJSON or UnmarshalText
		x.fault("invalid", "is not valid")
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

// member is a member of a struct as encoding/json knows it. The type is nil where the
// value is written in another form (the option string).
type member struct {
	name  string
	field reflect.Type
}

// member finds the member called name: the exact name first, then without regard to
// case, as encoding/json does.
func (x *explainer) member(t reflect.Type, name string) (field reflect.Type, known bool) {
	all, seen := x.members[t]
	if !seen {
		all = membersOf(t)
		x.members[t] = all
	}
	for _, m := range all {
		if m.name == name {
			return m.field, true
		}
		if !known && strings.EqualFold(m.name, name) {
			field, known = m.field, true
		}
	}
	return field, known
}

func membersOf(t reflect.Type) (all []member) {
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("json")
		label, options, _ := strings.Cut(tag, ",")
		if !f.IsExported() || tag == "-" || f.Anonymous && label == "" {
			continue
		}
		m := member{name: label, field: f.Type}
		if label == "" {
			m.name = f.Name
		}
		if strings.Contains(options, "string") {
			m.field = nil
		}
		all = append(all, m)
	}
	return all
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
