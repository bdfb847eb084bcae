package jsonfault

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// member is a member of a struct as encoding/json sees it.
type member struct {
	name string
	t    reflect.Type
	// alone is a struct with only this member, called v, if an option of the tag gives the value
	// another form, which only encoding/json knows.
	alone reflect.Type
	// ownCase: an option of the tag is about its case, which not every version knows.
	ownCase bool
	// hidden: it is behind an embedded pointer to an unexported struct, which cannot be set.
	hidden bool

	index  []int
	tagged bool
}

// structType is what encoding/json knows about a struct. It leaves out what versions of encoding/json
// read differently; about that, encoding/json is asked.
type structType struct {
	exact  map[string]*member
	folded map[string]*member // members that are found regardless of case
	loose  map[string]bool    // names that some version may take for one of a member; nil: unknown
}

// lacks reports whether it is obvious that no version of encoding/json takes a name for that of a
// member: asking costs several times as much as decoding.
func (s *structType) lacks(name []byte) bool {
	var buf [64]byte
	loose, plain := loosen(buf[:0], name)
	return plain && s.loose != nil && !s.loose[string(loose)]
}

// loosen appends a name to b in lower case, without the marks between its words. It returns false for
// a name that is not ASCII.
func loosen(b, name []byte) ([]byte, bool) {
	for _, c := range name {
		switch {
		case c >= utf8.RuneSelf:
			return nil, false
		case c == '_', c == '-':
		case 'A' <= c && c <= 'Z':
			b = append(b, c+'a'-'A')
		default:
			b = append(b, c)
		}
	}
	return b, true
}

var structTypes sync.Map // of reflect.Type to *structType; there are no more than types in the program

func membersOf(t reflect.Type) *structType {
	if s, ok := structTypes.Load(t); ok {
		return s.(*structType)
	}
	s := &structType{exact: map[string]*member{}, folded: map[string]*member{}}
	all, whole := candidates(t)
	if whole && len(all) > 0 {
		s.loose = map[string]bool{}
	}
	for _, m := range all {
		loose, plain := loosen(nil, []byte(m.name))
		if s.loose != nil && plain {
			s.loose[string(loose)] = true
		} else {
			s.loose = nil
		}
		if best := dominant(all, m.name); best != nil {
			s.exact[m.name] = best
		}
	}
	if !breadthFirst {
		slices.SortFunc(all, func(a, b *member) int { return slices.Compare(a.index, b.index) })
	}
	for _, m := range slices.Backward(all) {
		if s.exact[m.name] == m && !m.ownCase {
			s.folded[string(fold(nil, []byte(m.name)))] = m
		}
	}
	structTypes.Store(t, s)
	return s
}

// candidates are the fields of t and of the structs embedded in it, level by level. A
// struct that is embedded twice in one level has each of its fields twice. They are incomplete if
// only encoding/json knows what a tag means.
func candidates(t reflect.Type) (all []*member, whole bool) {
	whole = true
	type embedded struct {
		t      reflect.Type
		index  []int
		hidden bool
	}
	level := []embedded{{t: t}}
	seen := map[reflect.Type]bool{t: true}
	for len(level) > 0 {
		var deeper []embedded
		for _, in := range level {
			for i := range in.t.NumField() {
				f := in.t.Field(i)
				tag := f.Tag.Get("json")
				target := f.Type
				if target.Name() == "" && target.Kind() == reflect.Pointer {
					target = target.Elem()
				}
				inner := f.Anonymous && target.Kind() == reflect.Struct
				if tag == "-" || !f.IsExported() && !inner {
					continue
				}
				name, options, _ := strings.Cut(tag, ",")
				if !plainName(name) || flattens(options) {
					whole = false
					continue
				}
				index := append(slices.Clip(in.index), i)
				if inner && name == "" {
					hidden := in.hidden || !f.IsExported() && f.Type.Kind() == reflect.Pointer
					if !seen[target] {
						deeper = append(deeper, embedded{target, index, hidden})
					}
					continue
				}
				m := &member{name: cmp.Or(name, f.Name), t: f.Type, hidden: in.hidden, index: index, tagged: name != ""}
				m.ownCase = strings.Contains(options, "case:")
				if otherForm(f.Type, options) {
					tag := reflect.StructTag(`json:"v,` + strings.ReplaceAll(options, `"`, "") + `"`)
					m.alone = reflect.StructOf([]reflect.StructField{{Name: "V", Type: f.Type, Tag: tag}})
				}
				all = append(all, m)
			}
		}
		for _, e := range deeper {
			seen[e.t] = true
		}
		level = deeper
	}
	return all, whole
}

// fold appends a name to b so that names are equal if they differ only in case: of the runes that
// Unicode folds into one another it takes the smallest, as encoding/json does.
func fold(b, name []byte) []byte {
	for len(name) > 0 {
		r, n := utf8.DecodeRune(name)
		name = name[n:]
		for r < unicode.SimpleFold(r) {
			r = unicode.SimpleFold(r)
		}
		b = utf8.AppendRune(b, unicode.SimpleFold(r)) // the largest folds to the smallest
	}
	return b
}

// dominant returns the field that a name stands for, if there is exactly one: the shallowest, and
// among several of these the one with a tag.
func dominant(all []*member, name string) (best *member) {
	tie := false
	for _, m := range all {
		if m.name != name {
			continue
		}
		switch {
		case best == nil, len(m.index) == len(best.index) && m.tagged && !best.tagged:
			best, tie = m, false
		case len(m.index) == len(best.index) && m.tagged == best.tagged:
			tie = true
		}
	}
	if tie {
		return nil
	}
	return best
}

// otherForm reports whether the options of a tag change how a value is written. The option string
// does so for a value that is neither a list nor an object.
func otherForm(t reflect.Type, options string) bool {
	for range 8 {
		if t.Kind() != reflect.Pointer {
			break
		}
		t = t.Elem()
	}
	for option := range strings.SplitSeq(options, ",") {
		if option == "string" && t.Kind() <= reflect.Float64 || option == "string" && t.Kind() == reflect.String || formats(option) {
			return true
		}
	}
	return false
}

// plainName reports whether all versions of encoding/json accept a name in a tag.
func plainName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		switch {
		case r > '~':
			return !unicode.IsLetter(r) && !unicode.IsDigit(r)
		default:
			return r < ' ' || strings.ContainsRune("\\\"'`", r)
		}
	})
}

var arrayTypes sync.Map // of reflect.Type to bool

// hasArray reports whether encoding/json finds a Go array somewhere in a t.
func hasArray(t reflect.Type) bool {
	if has, ok := arrayTypes.Load(t); ok {
		return has.(bool)
	}
	has := findArray(t, map[reflect.Type]bool{})
	arrayTypes.Store(t, has)
	return has
}

func findArray(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] || t.Name() != "" && decodesItself(t, false) {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Array:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return findArray(t.Elem(), seen)
	case reflect.Struct:
		for _, m := range membersOf(t).exact {
			if findArray(m.t, seen) {
				return true
			}
		}
	}
	return false
}
