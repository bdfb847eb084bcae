package jsonfault

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	// MaxFaults bounds how many faults of one value are reported.
	MaxFaults = 20
	// MaxPath bounds a path, in bytes; what is cut off is replaced by "...".
	MaxPath = 256
	// maxAfter bounds how many values are checked after the first fault.
	maxAfter = 10_000
)

// Fault is what is wrong with one value or member.
type Fault struct {
	Path    string // from the outermost value, such as items[1].sku
	Code    string // unknown_member, wrong_type or invalid
	Message string // what would be right, in terms of JSON
	Offset  int64  // where in the text the name or value begins
	Err     error  // the error of a type that decodes itself, or nil
}

// Report is what is wrong with a text.
type Report struct {
	Faults []Fault
	Cut    bool  // not everything was checked: there may be more faults
	Type   error // encoding/json cannot decode into the type, whatever the text is
}

// Explain reports what in text, which is one well-formed JSON value, does not fit into a t. It
// reports at least one fault, unless the type is at fault. It is for a text that Decode has
// rejected: encoding/json reports only a part of the path of a fault. So Explain walks over value
// and type together, once, and asks encoding/json about each single value that is not obviously
// right.
func Explain(text []byte, t reflect.Type) Report {
	x := explainer{in: cursor{text: text}}
	x.whole(t)
	if len(x.Faults) == 0 && x.Type == nil {
		x.at = 0
		x.fault("invalid", "is not valid")
	}
	return x.Report
}

// Forgiven reports what encoding/json has accepted although it does not fit: null where t has no
// value for it, and an array with more elements than a Go array. It costs nothing for a t without
// Go arrays.
func Forgiven(text []byte, t reflect.Type) Report {
	x := explainer{in: cursor{text: text}, lengths: true}
	if x.in.peek() == 'n' || hasArray(t) {
		x.whole(t)
	}
	return x.Report
}

type explainer struct {
	Report
	in      cursor
	lengths bool // check only the lengths of arrays
	lax     bool // do not check the lengths of arrays
	at      int  // where the current name or value begins
	path    []step
	after   int // how many values have been checked after the first fault
	ended   bool
	asked   map[asking]*member // nil: unknown
	scratch []byte
}

// step is one step of a path: the name of a member as it is written, or an index.
type step struct {
	name  []byte // nil: index
	index int
}

type asking struct {
	t    reflect.Type
	name string
}

// more reports whether there is another member or element to check.
func (x *explainer) more() bool {
	switch {
	case x.ended || !x.in.more():
		return false
	case x.Type != nil:
		x.ended = true
	case len(x.Faults) >= MaxFaults || x.after >= maxAfter:
		x.ended, x.Cut = true, true
	case len(x.Faults) > 0:
		x.after++
	}
	return !x.ended
}

// fault is the only place where a path is written out, since most values have no fault.
func (x *explainer) fault(code, message string) {
	path := x.scratch[:0]
	for _, s := range x.path {
		switch {
		case s.name == nil:
			path = append(strconv.AppendInt(append(path, '['), int64(s.index), 10), ']')
		case len(path) > 0:
			path = appendUnquoted(append(path, '.'), s.name)
		default:
			path = appendUnquoted(path, s.name)
		}
		if x.scratch = path; len(path) > MaxPath {
			break
		}
	}
	x.Faults = append(x.Faults, Fault{Path: CutPath(string(path)), Code: code, Message: message, Offset: int64(x.at)})
}

// CutPath cuts a path to at most MaxPath bytes, with a mark at its end if it was longer.
func CutPath(path string) string {
	if len(path) > MaxPath {
		return strings.ToValidUTF8(path[:MaxPath], "") + "..."
	}
	return path
}

// appendUnquoted appends a string as encoding/json reads it.
func appendUnquoted(b, quoted []byte) []byte {
	if inner, plain := unquoted(quoted); plain {
		return append(b, inner...)
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it has been read before
	return append(b, s...)
}

// unquoted returns what is between the quotes, if encoding/json reads it unchanged.
func unquoted(quoted []byte) (inner []byte, plain bool) {
	if len(quoted) < 2 || bytes.IndexByte(quoted, '\\') >= 0 {
		return nil, false
	}
	return quoted[1 : len(quoted)-1], true
}

// whole checks the outermost value. Null does not fit, unless the type has a value for it.
func (x *explainer) whole(t reflect.Type) {
	decodes := decodesItself(t, true) && !decodesText(t)
	if kind := t.Kind(); x.in.peek() != 'n' || kind == reflect.Pointer || kind == reflect.Interface || decodes {
		x.value(t, true)
		return
	}
	x.at = x.in.pos
	x.fault("wrong_type", wants(t, []byte("null")))
}

// value checks the next value of the text, which goes into a t. For encoding/json it matters whether
// a pointer leads to it.
func (x *explainer) value(t reflect.Type, pointed bool) {
	first := x.in.peek()
	x.at = x.in.pos
	for t.Kind() == reflect.Pointer {
		if first == 'n' {
			x.in.next()
			return
		}
		t, pointed = t.Elem(), true
	}
	kind := t.Kind()
	switch {
	case x.lengths && !hasArray(t):
		x.in.next()
	case decodesItself(t, pointed):
		x.leaf(t)
	case first == 'n' && (kind <= reflect.Float64 || kind == reflect.String):
		x.in.next()
	case kind == reflect.Struct, kind == reflect.Map && x.takesObjects(t):
		x.object(t)
	case kind == reflect.Interface && t.NumMethod() == 0 && first == '{':
		x.object(t)
	case kind == reflect.Interface && t.NumMethod() == 0 && first == '[':
		x.array(t)
	case (kind == reflect.Slice || kind == reflect.Array) && !(isBytes(t) && first != '['):
		x.array(t)
	default:
		x.leaf(t)
	}
}

// object checks an object that goes into a struct, a map, or an interface.
func (x *explainer) object(t reflect.Type) {
	if !x.opens('{', t) {
		return
	}
	last := len(x.path)
	x.path = append(x.path, step{})
	for x.more() {
		x.in.peek()
		x.at = x.in.pos
		name := x.in.next()
		x.path[last].name = name
		switch t.Kind() {
		case reflect.Map:
			if x.key(t.Key(), name) {
				x.value(t.Elem(), false)
			} else {
				x.in.next()
			}
		case reflect.Interface:
			x.value(t, false)
		default:
			x.member(t, name)
		}
	}
	x.path = x.path[:last]
	x.leave()
}

// array checks an array that goes into a slice, an array, or an interface.
func (x *explainer) array(t reflect.Type) {
	begins := x.at
	if !x.opens('[', t) {
		return
	}
	elem := t
	if t.Kind() != reflect.Interface {
		elem = t.Elem()
	}
	last := len(x.path)
	x.path = append(x.path, step{})
	for x.more() {
		if index := x.path[last].index; t.Kind() == reflect.Array && index == t.Len() {
			x.path, x.at = x.path[:last], begins
			if !x.lax {
				x.fault("invalid", fmt.Sprintf("must have %d elements or fewer", index))
			}
			for x.in.more() {
				x.in.next()
			}
			break
		}
		x.value(elem, false)
		x.path[last].index++
	}
	x.path = x.path[:last]
	x.leave()
}

// opens enters an object or array, or steps over any other value. Null fits everywhere.
func (x *explainer) opens(bracket byte, t reflect.Type) bool {
	first := x.in.peek()
	if first == bracket {
		x.in.step()
		return true
	}
	if value := x.in.next(); first != 'n' {
		x.fault("wrong_type", wants(t, value))
	}
	return false
}

// leave leaves an object or array after its last member or element.
func (x *explainer) leave() {
	if !x.ended {
		x.in.step()
	}
}

// member checks the value of a member of the struct t.
func (x *explainer) member(t reflect.Type, quoted []byte) {
	m := x.named(t, quoted)
	switch {
	case m == nil:
		x.fault("unknown_member", "is not a known member")
		x.in.next()
	case m.hidden:
		x.in.next()
		x.Type = fmt.Errorf("encoding/json cannot set %s of %v: it is behind an embedded pointer to an unexported struct", m.name, t)
	case x.lengths && (m.alone != nil || m.t == nil):
		x.in.next()
	case m.alone != nil:
		x.inOtherForm(m)
	case m.t == nil:
		x.in.peek()
		x.at = x.in.pos
		if err := x.askMember(t, quoted, x.in.next()); err != nil {
			x.fault("invalid", "is not valid")
		}
	default:
		x.value(m.t, false)
	}
}

// named returns the member with a name, or nil. If the result has no type, only encoding/json knows
// the member.
func (x *explainer) named(t reflect.Type, quoted []byte) *member {
	known := membersOf(t)
	name, plain := unquoted(quoted)
	if !plain {
		name = appendUnquoted(nil, quoted)
	}
	if m := known.exact[string(name)]; m != nil {
		return m
	}
	x.scratch = fold(x.scratch[:0], name)
	if m := known.folded[string(x.scratch)]; m != nil {
		return m
	}
	if known.lacks(name) {
		return nil
	}
	if m, seen := x.asked[asking{t, string(name)}]; seen {
		return m
	}
	var m *member
	if !isUnknown(x.askMember(t, quoted, []byte("null"))) {
		m = &member{name: string(name)}
	}
	if x.asked == nil {
		x.asked = map[asking]*member{}
	}
	x.asked[asking{t, string(name)}] = m
	return m
}

// askMember asks encoding/json about one member of a t to which no pointer leads.
func (x *explainer) askMember(t reflect.Type, quoted, value []byte) error {
	text := append(append([]byte("["), x.oneMember(quoted, value)...), ']')
	return ask(text, reflect.New(reflect.SliceOf(t)).Interface(), true)
}

// oneMember returns the text of an object with one member.
func (x *explainer) oneMember(quoted, value []byte) []byte {
	x.scratch = append(append(x.scratch[:0], '{'), quoted...)
	return append(append(append(x.scratch, ':'), value...), '}')
}

// inOtherForm checks a value that has another form by the option of a tag.
func (x *explainer) inOtherForm(m *member) {
	x.in.peek()
	x.at = x.in.pos
	value := x.in.next()
	t := m.t
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	kind := m.t.Kind()
	isInt := kind >= reflect.Int && kind <= reflect.Uintptr && len(value) > 2 && value[0] == '"' && fits(t, value[1:len(value)-1])
	if isInt || len(value) == 0 || ask(x.oneMember([]byte(`"v"`), value), reflect.New(m.alone).Interface(), false) == nil {
		return
	}
	var message string
	if value[0] == '"' {
		message = wants(t, bytes.Trim(value, `"`))
	} else {
		message = wants(t, nil)
	}
	if strings.HasPrefix(message, "must be ") {
		message += " inside a string"
	}
	x.fault("wrong_type", message)
}

// takesObjects reports whether encoding/json can decode the keys of a map of the type t.
func (x *explainer) takesObjects(t reflect.Type) bool {
	switch kind := t.Key().Kind(); {
	case kind == reflect.String, kind >= reflect.Int && kind <= reflect.Uintptr, reflect.PointerTo(t.Key()).Implements(ownMethods[1]):
		return true
	default:
		return ask([]byte("{}"), reflect.New(t).Interface(), false) == nil
	}
}

// key reports whether a name fits as the key of a map.
func (x *explainer) key(t reflect.Type, quoted []byte) bool {
	itself := decodesItself(t, true)
	if x.lengths || t.Kind() == reflect.String && !itself {
		return true
	}
	if len(quoted) > 2 && !itself && fits(t, quoted[1:len(quoted)-1]) {
		return true
	}
	keys := reflect.MapOf(t, reflect.TypeFor[any]())
	err := ask(x.oneMember(quoted, []byte("null")), reflect.New(keys).Interface(), false)
	switch {
	case err == nil:
		return true
	case itself:
		x.fault("invalid", "has a name that is not valid")
		x.Faults[len(x.Faults)-1].Err = err
	case t.Kind() < reflect.Int || t.Kind() > reflect.Float64:
		x.Type = fmt.Errorf("encoding/json cannot decode into a map with keys of %v", t)
	default:
		x.fault("invalid", "has a name that is not an integer in range")
	}
	return false
}

// leaf checks a value as a whole. If the value is not obviously right, it asks encoding/json about
// that value alone, since the cost of an error grows with its path.
func (x *explainer) leaf(t reflect.Type) {
	value := x.in.next()
	if len(value) == 0 || x.lengths || string(value) == `"` { // not well-formed
		return
	}
	itself := decodesItself(t, true)
	if !itself && (fits(t, value) || x.isBase64(t, value)) {
		return
	}
	if !itself && undecodable(t) && value[0] != 'n' {
		x.Type = fmt.Errorf("encoding/json cannot decode into %v", t)
		return
	}
	if !itself && differs(t, value) {
		x.fault("wrong_type", wants(t, value))
		return
	}
	err := decodeLeaf(value, reflect.New(t).Interface())
	switch {
	case err == nil:
	case itself && decodesText(t) && value[0] != '"':
		x.fault("wrong_type", "must be a string")
	case itself:
		x.fault("invalid", "is not valid")
		x.Faults[len(x.Faults)-1].Err = err
	case isBytes(t) && value[0] == '"':
		x.fault("invalid", "is not valid")
	default:
		x.fault("wrong_type", wants(t, value))
	}
}

// decodeLeaf decodes a value into v. If it is obvious which method of v encoding/json would call, it
// calls that itself, since encoding/json takes several times as long.
func decodeLeaf(value []byte, v any) error {
	value = slices.Clip(value)
	plain := value[0] == '"' && bytes.IndexByte(value, '\\') < 0
	switch v := v.(type) {
	case unmarshalerFrom:
	case json.Unmarshaler:
		if value[0] != 'n' {
			return v.UnmarshalJSON(value)
		}
	case encoding.TextUnmarshaler:
		if plain {
			return v.UnmarshalText(slices.Clip(value[1 : len(value)-1]))
		}
	}
	return ask(value, v, false)
}

// isBase64 reports whether a value obviously fits into bytes.
func (x *explainer) isBase64(t reflect.Type, value []byte) bool {
	if !isBytes(t) || value[0] != '"' || bytes.IndexByte(value, '\\') >= 0 {
		return false
	}
	text := value[1 : len(value)-1]
	if n := base64.StdEncoding.DecodedLen(len(text)); cap(x.scratch) < n {
		x.scratch = make([]byte, n)
	}
	_, err := base64.StdEncoding.Decode(x.scratch[:cap(x.scratch)], text)
	return err == nil
}

// isBytes reports whether encoding/json reads a t in base64.
func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// undecodable reports whether encoding/json cannot decode into a t.
func undecodable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Map:
		return true // a map that is checked as a whole has keys that cannot be decoded
	case reflect.Interface:
		return t.NumMethod() > 0
	default:
		return false
	}
}

var numberType = reflect.TypeFor[json.Number]()

// fits reports whether a value obviously fits into a t that does not decode itself. It only saves
// time: an explanation checks all values before the last fault.
func fits(t reflect.Type, value []byte) bool {
	first := value[0]
	number := first == '-' || '0' <= first && first <= '9'
	switch kind := t.Kind(); kind {
	case reflect.Interface:
		return t.NumMethod() == 0 && (!number || fitsFloat(value, 64))
	case reflect.String:
		if t == numberType {
			return number
		}
		return first == '"'
	case reflect.Bool:
		return first == 't' || first == 'f'
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fitsInt(value, t.Bits(), kind <= reflect.Int64)
	case reflect.Float32, reflect.Float64:
		return number && fitsFloat(value, t.Bits())
	default:
		return false
	}
}

// differs reports whether a value obviously does not fit into a t that does not decode itself, for
// the same reason.
func differs(t reflect.Type, value []byte) bool {
	first := value[0]
	number := first == '-' || '0' <= first && first <= '9'
	switch kind := t.Kind(); {
	case first == 'n' || t == numberType:
		return false
	case kind == reflect.Bool, kind == reflect.String:
		return true // or it would have fit
	case kind >= reflect.Int && kind <= reflect.Uintptr:
		return !number || bytes.ContainsAny(value, ".eE")
	case kind == reflect.Float32, kind == reflect.Float64:
		return !number
	default:
		return false
	}
}

func fitsInt(value []byte, bits int, signed bool) bool {
	digits := value
	if signed && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || digits[0] == '0' && len(value) > 1 {
		return false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return false
		}
	}
	if len(digits)*10/3 < bits-1 { // a number with so few digits always fits
		return true
	}
	var err error
	if signed {
		_, err = strconv.ParseInt(string(value), 10, bits)
	} else {
		_, err = strconv.ParseUint(string(value), 10, bits)
	}
	return err == nil
}

func fitsFloat(value []byte, bits int) bool {
	if len(value) <= 38 && !bytes.ContainsAny(value, "eE") {
		return true
	}
	_, err := strconv.ParseFloat(string(value), bits)
	return err == nil
}

var withMethods sync.Map // of reflect.Type to bool; finding the methods takes longer than calling them

// decodesItself reports whether encoding/json calls methods of a t, depending on whether a pointer
// leads to it.
func decodesItself(t reflect.Type, pointed bool) bool {
	if !pointed && !unnamedDecodes && t.Name() == "" {
		return false
	}
	if kind := t.Kind(); kind == reflect.Interface || kind == reflect.Pointer || t.PkgPath() == "" && kind != reflect.Struct {
		return false // these have no methods
	}
	if t == numberType {
		return false // its method in v2 does what encoding/json did before
	}
	if has, ok := withMethods.Load(t); ok {
		return has.(bool)
	}
	p := reflect.PointerTo(t)
	has := slices.ContainsFunc(ownMethods, p.Implements)
	withMethods.Store(t, has)
	return has
}

// decodesText reports whether a t that decodes itself does so only from a string.
func decodesText(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	for i, method := range ownMethods {
		if p.Implements(method) != (i == 1) {
			return false
		}
	}
	return true
}

// wants returns what a value must be, in terms of JSON.
func wants(t reflect.Type, value []byte) string {
	number := len(value) > 0 && (value[0] == '-' || '0' <= value[0] && value[0] <= '9')
	switch t.Kind() {
	case reflect.Bool:
		return "must be true or false"
	case reflect.String:
		if t == numberType {
			return "must be a number"
		}
		return "must be a string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if number && !bytes.ContainsAny(value, ".eE") {
			return "is out of range"
		}
		return "must be an integer"
	case reflect.Float32, reflect.Float64:
		if number {
			return "is out of range"
		}
		return "must be a number"
	case reflect.Interface:
		return "is out of range" // only a number can be wrong
	case reflect.Struct, reflect.Map:
		if decodesText(t) {
			return "must be a string"
		}
		return "must be an object"
	case reflect.Slice, reflect.Array:
		if isBytes(t) {
			return "must be a string in base64"
		}
		return "must be an array"
	default:
		return "has the wrong type"
	}
}
