package jsonfault

import (
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
)

const (
	// MaxFaults bounds how many faults of one value are listed.
	MaxFaults = 20
	// MaxPath bounds a path, in bytes; what is cut off is replaced by "...".
	MaxPath = 256
)

// Fault is what is wrong with one value or member.
type Fault struct {
	Path    string // from the outermost value, such as items[1].sku
	Code    string // unknown_member, wrong_type or invalid
	Message string // what is right, in the terms of JSON
	Offset  int64  // where in the text the name or value begins
}

// Explain lists what in text, which is one well-formed JSON value, does not fit into a
// t; at least one fault. It is for a text that Decode has refused: encoding/json tells
// the path of a fault only in part, so Explain walks value and type side by side, once,
// and asks it about each value alone.
func Explain(text []byte, t reflect.Type) []Fault {
	x := explainer{Reader: NewReader(text), members: map[reflect.Type][]member{}}
	x.value(t)
	if len(x.faults) == 0 {
		x.at = NewReader(text).Next()
		x.fault("invalid", "is not valid")
	}
	return x.faults
}

type explainer struct {
	*Reader
	at      int64 // where the name or value begins that is being read
	path    []step
	members map[reflect.Type][]member
	faults  []Fault
	err     error // of syntax: there is no more to read
}

// step is one step of a path: the name of a member, or an index.
type step struct {
	name  string
	index int // -1: name
}

// more reports whether there is another member or element to look at.
func (x *explainer) more() bool {
	return x.err == nil && len(x.faults) < MaxFaults && x.More()
}

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
		if len(path) > MaxPath {
			path = append(path[:MaxPath], "..."...)
			break
		}
	}
	x.faults = append(x.faults, Fault{Path: string(path), Code: code, Message: message, Offset: x.at})
}

// value reads the next value of the text, which goes into a t.
func (x *explainer) value(t reflect.Type) {
	x.at = x.Next()
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
	for x.more() {
		x.at = x.Next()
		x.path[last].name, x.err = x.Name()
		if x.err != nil {
			break
		}
		if t.Kind() == reflect.Map {
			x.value(t.Elem())
			continue
		}
		field, known := x.member(t, x.path[last].name)
		switch {
		case !known:
			x.fault("unknown_member", "is not known here")
			x.err = x.Skip()
		case field == nil:
			x.err = x.Skip()
		default:
			x.value(field)
		}
	}
	x.path = x.path[:last]
	x.leave()
}

func (x *explainer) array(t reflect.Type) {
	if !x.opens('[', "must be an array") {
		return
	}
	last := len(x.path)
	x.path = append(x.path, step{})
	for ; x.more(); x.path[last].index++ {
		x.value(t.Elem())
	}
	x.path = x.path[:last]
	x.leave()
}

// opens enters an object or array, or skips a value that is none. Null fits everywhere.
func (x *explainer) opens(bracket byte, message string) bool {
	switch x.Peek() {
	case bracket:
		x.err = x.Enter()
		return x.err == nil
	case 'n':
	default:
		x.fault("wrong_type", message)
	}
	x.err = x.Skip()
	return false
}

// leave leaves an object or array of which all was looked at.
func (x *explainer) leave() {
	if x.err == nil && len(x.faults) < MaxFaults {
		x.err = x.Leave()
	}
}

// leaf reads a value that is looked at as a whole. It asks encoding/json about what is
// not plainly right, apart from what is around it: an error may cost as much as its
// path is long.
func (x *explainer) leaf(t reflect.Type) {
	if x.err = x.Skip(); x.err != nil {
		return
	}
	value := x.text[x.at:x.End()]
	itself := decodesItself(t)
	if !itself && fits(t, value) {
		return
	}
	err := json.Unmarshal(value, reflect.New(t).Interface())
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &wrong) && errors.Unwrap(wrong) == nil && !itself:
		x.fault("wrong_type", wants(t, wrong.Value))
	default: // not base64, or refused by a method of its own
		x.fault("invalid", "is not valid")
	}
}

// fits reports whether a value plainly fits into a t that does not decode itself. It is
// here for speed: an explanation asks about all values before the last fault.
func fits(t reflect.Type, value []byte) bool {
	var err error
	switch t.Kind() {
	case reflect.Interface:
		return t.NumMethod() == 0
	case reflect.String:
		return value[0] == '"' && t != reflect.TypeFor[json.Number]()
	case reflect.Bool:
		return value[0] == 't' || value[0] == 'f'
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		_, err = strconv.ParseInt(string(value), 10, t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		_, err = strconv.ParseUint(string(value), 10, t.Bits())
	case reflect.Float32, reflect.Float64:
		_, err = strconv.ParseFloat(string(value), t.Bits())
	default:
		return false
	}
	return err == nil
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	for _, method := range ownMethods {
		if p.Implements(method) {
			return true
		}
	}
	return false
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
