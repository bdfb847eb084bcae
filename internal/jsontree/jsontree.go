// Package jsontree has JSON as a tree that can be changed and written again without loss: members
// keep their order, and names, numbers and strings stay as they were written.
package jsontree

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
)

// Value is an object, an array, or a scalar as it is written. A nil Value is no value, and has no
// members.
type Value struct {
	kind    byte   // '{', '[', or 0 for a scalar
	written []byte // of a scalar
	members []member
	index   map[string]int // of the members of an object, by name
}

type member struct {
	name    string
	written []byte // the name
	value   *Value
}

// Of returns the Value for v: a *Value, a string, a bool, an int, or a slice of strings or
// *Values. It panics on other types.
func Of(v any) *Value {
	switch v := v.(type) {
	case *Value:
		return v
	case string:
		return &Value{written: quote(v)}
	case bool:
		return &Value{written: strconv.AppendBool(nil, v)}
	case int:
		return &Value{written: strconv.AppendInt(nil, int64(v), 10)}
	case []string:
		a := Array()
		for _, s := range v {
			a.Append(Of(s))
		}
		return a
	case []*Value:
		return Array(v...)
	default:
		panic(fmt.Sprintf("jsontree: Of: there is no Value for a %T", v))
	}
}

// Object returns an object. Its arguments are names and values that Of accepts, in turn. A member
// whose value is a nil *Value is left out.
func Object(namesAndValues ...any) *Value {
	o := &Value{kind: '{', index: map[string]int{}}
	for i := 0; i < len(namesAndValues); i += 2 {
		if v := Of(namesAndValues[i+1]); v != nil {
			o.Set(namesAndValues[i].(string), v)
		}
	}
	return o
}

// Array returns an array of values that Of accepts.
func Array(items ...*Value) *Value {
	a := &Value{kind: '['}
	for _, item := range items {
		a.Append(item)
	}
	return a
}

// IsObject reports whether v is an object.
func (v *Value) IsObject() bool { return v != nil && v.kind == '{' }

// Len returns the number of members or items of v.
func (v *Value) Len() int {
	if v == nil {
		return 0
	}
	return len(v.members)
}

// Get returns a member of an object, or nil.
func (v *Value) Get(name string) *Value {
	if !v.IsObject() {
		return nil
	}
	i, found := v.index[name]
	if !found {
		return nil
	}
	return v.members[i].value
}

// Set replaces the member with the name, or appends a member to the object.
func (v *Value) Set(name string, value *Value) {
	if i, found := v.index[name]; found {
		v.members[i].value = value
		return
	}
	v.index[name] = len(v.members)
	v.members = append(v.members, member{name, quote(name), value})
}

// Append appends an item to an array.
func (v *Value) Append(item *Value) { v.members = append(v.members, member{value: item}) }

// All yields the members of an object, in order.
func (v *Value) All() iter.Seq2[string, *Value] {
	return func(yield func(string, *Value) bool) {
		if !v.IsObject() {
			return
		}
		for _, m := range v.members {
			if !yield(m.name, m.value) {
				return
			}
		}
	}
}

// Items yields the items of an array, in order.
func (v *Value) Items() iter.Seq[*Value] {
	return func(yield func(*Value) bool) {
		if v == nil || v.kind != '[' {
			return
		}
		for _, m := range v.members {
			if !yield(m.value) {
				return
			}
		}
	}
}

// Text returns the string v, or false if v is not a string.
func (v *Value) Text() (text string, ok bool) {
	if v == nil || len(v.written) == 0 || v.written[0] != '"' {
		return "", false
	}
	return unquote(v.written), true
}

// Map returns a copy of v in which each string is replaced by the result of f. The function gets
// the name of the member; for items it is that of their array.
func (v *Value) Map(f func(name, text string) string) *Value { return v.mapped("", f) }

func (v *Value) mapped(name string, f func(name, text string) string) *Value {
	if text, ok := v.Text(); ok {
		if to := f(name, text); to != text {
			return Of(to)
		}
		return v
	}
	c := &Value{kind: v.kind, written: v.written}
	if v.kind == '{' {
		c.index = make(map[string]int, len(v.members))
	}
	for i, m := range v.members {
		if v.kind == '{' {
			c.index[m.name] = i
			c.members = append(c.members, member{m.name, m.written, m.value.mapped(m.name, f)})
		} else {
			c.members = append(c.members, member{value: m.value.mapped(name, f)})
		}
	}
	return c
}

// Equal reports whether two Values are equal, in any order of members. Numbers are equal if they
// are written in the same way.
func Equal(a, b *Value) bool {
	if a == nil || b == nil || a.kind != b.kind || len(a.members) != len(b.members) {
		return a == b
	}
	switch a.kind {
	case '{':
		for _, m := range a.members {
			if !Equal(m.value, b.Get(m.name)) {
				return false
			}
		}
		return true
	case '[':
		for i, m := range a.members {
			if !Equal(m.value, b.members[i].value) {
				return false
			}
		}
		return true
	}
	one, isText := a.Text()
	other, _ := b.Text()
	return isText && one == other && b.written[0] == '"' || bytes.Equal(a.written, b.written)
}

// maxDepth is the depth up to which values are indented. Deeper ones stand on one line, or a text
// of only brackets would grow to the square of its length in spaces.
const maxDepth = 64

// Write returns v as text, indented by two spaces, with a line break at its end.
func (v *Value) Write() []byte { return append(v.append(nil, 0), '\n') }

func (v *Value) append(b []byte, depth int) []byte {
	if v.kind == 0 {
		return append(b, v.written...)
	}
	b = append(b, v.kind)
	line := func(depth int) {
		if depth <= maxDepth {
			b = append(b, '\n')
			for range depth {
				b = append(b, "  "...)
			}
		}
	}
	for i, m := range v.members {
		if i > 0 {
			b = append(b, ',')
		}
		line(depth + 1)
		if v.kind == '{' {
			b = append(append(b, m.written...), ": "...)
		}
		b = m.value.append(b, depth+1)
	}
	if len(v.members) > 0 && depth < maxDepth {
		line(depth)
	}
	return append(b, v.kind+2) // '}' and ']' are two after their brackets
}

func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // never, for a string
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func unquote(written []byte) string {
	if bytes.IndexByte(written, '\\') < 0 {
		return string(written[1 : len(written)-1])
	}
	var s string
	if err := json.Unmarshal(written, &s); err != nil {
		panic(err) // never: it has been parsed
	}
	return s
}
