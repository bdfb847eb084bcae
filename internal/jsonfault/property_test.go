package jsonfault_test

//lint:file-ignore SA5008 these types are what encoding/json forgives
//lint:file-ignore U1000 the same

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/jsonfault"
)

type (
	ID     string
	Inner  struct{ B, N string }
	Tagged struct {
		B string `json:"x"`
	}
	Other   struct{ B, N int }
	Deep    struct{ Inner }
	lower   struct{ B int }
	Text    struct{ s string }
	Itself  struct{ s string }
	Named   json.Number
	Small   uint8
	Texts   map[netip.Addr]int
	Pointer *int
	String  string
)

func (t *Text) UnmarshalText(b []byte) error {
	if len(b) != 1 {
		return fmt.Errorf("one byte")
	}
	return nil
}

func (t *Itself) UnmarshalJSON(b []byte) error {
	if b[0] == '{' || b[0] == 'n' {
		return nil
	}
	return fmt.Errorf("an object")
}

func (s *Small) UnmarshalText(b []byte) error { return nil }

// structs are what reflect.StructOf cannot make.
var structs = []any{
	order{},
	forgivens{},
	silent{},
	ambiguous{},
	misused{},
	malformed{},
	embedded{},
	struct {
		ID
		N int
	}{},
	struct {
		*ID
		N int
	}{},
	struct {
		Tagged
		A int `json:"x"`
	}{},
	struct {
		Inner `json:"inner"`
		N     int
	}{},
	struct {
		Inner
		Other
		X int
	}{},
	struct {
		Deep
		*Inner
	}{},
	struct {
		Deep
		Other
	}{},
	struct {
		lower
		A int
	}{},
	struct {
		lower `json:"low"`
		A     int
	}{},
	struct {
		A, a int
		B    int `json:"-"`
		N    int `json:"-,"`
	}{},
	struct {
		B  int `json:"b"`
		B2 int `json:"B"`
	}{},
	struct {
		A int `json:"n"`
		B int `json:"N"`
		N int `json:"\u00e9\u212a"`
	}{},
	struct {
		A struct{ Text }
		B *struct{ Text }
		N []struct{ Itself }
	}{},
	struct {
		A ID
		B Text
		N *Itself
		X Itself
	}{},
	struct {
		A int     `json:",string"`
		B *string `json:"b,string"`
		N bool    `json:",omitempty,string"`
		X float32 `json:",string,omitempty"`
		C Pointer `json:"c,string"`
		D **int   `json:"d,string"`
		E String  `json:"e,string"`
		F []int   `json:"f,string"`
	}{},
	struct {
		A map[int8]int
		B map[ID]Text
		N map[Text]int
		X Texts
		C map[uint]map[string]any
		D map[Itself]int
	}{},
	struct {
		A [4]byte
		B []Small
		N [2]any
		X [][2]Other
		C [0]int
	}{},
	struct {
		A json.Number
		B Named
		N json.RawMessage
		X big.Int
		C *json.Number
		D map[string]json.Number
	}{},
	struct {
		A any
		B map[string]any
		N []any
		X *any
		C interface{ M() }
	}{},
	struct {
		Time time.Time
		A    time.Duration
		B    netip.Addr
		N    *netip.Prefix
	}{},
}

// leaves are types of members that are made at random.
var leaves = []reflect.Type{
	reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[uint16](), reflect.TypeFor[uint64](), reflect.TypeFor[string](),
	reflect.TypeFor[bool](), reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[any](), reflect.TypeFor[json.Number](),
	reflect.TypeFor[[]byte](), reflect.TypeFor[[3]byte](), reflect.TypeFor[time.Time](), reflect.TypeFor[Text](), reflect.TypeFor[Itself](),
	reflect.TypeFor[json.RawMessage](), reflect.TypeFor[ID](), reflect.TypeFor[[]Small](), reflect.TypeFor[Named](),
}

func randomType(r *rand.Rand, depth int) reflect.Type {
	if depth == 0 {
		return leaves[r.IntN(len(leaves))]
	}
	inner := func() reflect.Type { return randomType(r, r.IntN(depth)) }
	switch r.IntN(7) {
	case 0:
		return reflect.PointerTo(inner())
	case 1:
		return reflect.SliceOf(inner())
	case 2:
		return reflect.ArrayOf(r.IntN(3), inner())
	case 3:
		keys := []reflect.Type{reflect.TypeFor[string](), reflect.TypeFor[int8](), reflect.TypeFor[ID](), reflect.TypeFor[Text]()}
		return reflect.MapOf(keys[r.IntN(len(keys))], inner())
	default:
		var fields []reflect.StructField
		tags := []string{"", "", "a", "A", "n", "-", "-,", ",string", "b,omitempty", "b,string", "x y", "a;", "é", "a_b", "k", "A,case:strict", "b,case:ignore"}
		for i := range 1 + r.IntN(4) {
			f := reflect.StructField{Type: inner()}
			if f.Name = []string{"A", "B", "N", "X"}[i]; r.IntN(2) == 0 {
				f.Tag = reflect.StructTag(fmt.Sprintf("json:%q", tags[r.IntN(len(tags))]))
			}
			fields = append(fields, f)
		}
		return reflect.StructOf(fields)
	}
}

var names = []string{
	"A", "a", "B", "b", "N", "n", "X", "x", "c", "C", "D", "E", "f", "ID", "Inner", "inner", "low", "lower", "x y", "-", "é", "É", "éK", "a_b", "A_B", "k", "\u212a", "1", "-0", "007", "300", "::1",
	"Silent", "Ambiguous", "AB", "ab", "t", "s", "p", "Misused", "'b", "Malformed", "number", "pair", "labels", "raw", "fixed", "any", "Time", "time", "big", `\u0041`, `b\u0000`, "",
}

func randomValue(r *rand.Rand, depth int) string {
	scalars := []string{
		`null`, `true`, `0`, `-0`, `1`, `-1`, `300`, `99999999999999999999`, `1.5`, `1e2`, `1e400`, `1e39`, `1.0`, `""`, `"x"`, `"1"`, `"-0"`, `"007"`, `"null"`, `"true"`, `"AQ=="`, `"AQ"`, `"%"`, `"A\nQ=="`,
		`"\u0041"`, `"\"x\""`, `"\"x"`, `"1.5"`, `"300"`, `"::1"`, `"10.0.0.0/8"`, `"2026-01-02T03:04:05Z"`, `"\ud800"`, `[]`, `{}`,
	}
	if depth == 0 || r.IntN(3) == 0 {
		return scalars[r.IntN(len(scalars))]
	}
	var parts []string
	if r.IntN(2) == 0 {
		for range r.IntN(4) {
			parts = append(parts, randomValue(r, depth-1))
		}
		return "[" + strings.Join(parts, " , ") + "]"
	}
	for range r.IntN(4) {
		parts = append(parts, `"`+names[r.IntN(len(names))]+`" : `+randomValue(r, depth-1))
	}
	return "{" + strings.Join(parts, ",\n") + "}"
}

func strictly(text []byte, t reflect.Type) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(reflect.New(t).Interface())
}

// A member is unknown exactly if encoding/json says so of it alone, and wrong exactly if
// encoding/json cannot decode it alone, or if it has an array that is too long.
func TestExplainIsThatOfEncodingJSON(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 20_000 {
		typ := reflect.TypeOf(structs[n%len(structs)])
		if n%2 == 0 {
			for typ = randomType(r, 4); typ.Kind() != reflect.Struct; {
				typ = randomType(r, 4)
			}
		}
		sameAsTheirs(t, r, typ)
	}
}

func sameAsTheirs(t *testing.T, r *rand.Rand, typ reflect.Type) {
	t.Helper()
	var body []string
	wrong := map[string]bool{}
	broken := false
	for range 1 + r.IntN(4) {
		name := names[r.IntN(len(names))]
		text := fmt.Sprintf(`{ "%s":%s}`, name, randomValue(r, 3))
		theirs := strictly([]byte(text), typ)
		ours := jsonfault.NewReader([]byte(text)).Decode(reflect.New(typ).Interface())
		require.Equal(t, theirs == nil, ours == nil, "%v %s: %v, not %v", typ, text, ours, theirs)

		var path string
		require.NoError(t, json.Unmarshal([]byte(`"`+name+`"`), &path))
		report := jsonfault.Forgiven([]byte(text), typ)
		if theirs != nil {
			report = jsonfault.Explain([]byte(text), typ)
			require.True(t, report.Type != nil || len(report.Faults) > 0)
		}
		require.False(t, report.Cut)
		if report.Type != nil {
			broken = true
			continue
		}
		unknown := strictly([]byte(`{"`+name+`":null}`), typ)
		isUnknown := unknown != nil && strings.Contains(unknown.Error(), "unknown field")
		for _, f := range report.Faults {
			require.True(t, strings.HasPrefix(f.Path, path), "%v %s: %+v: %v", typ, text, f, theirs)
			require.Equal(t, isUnknown, f.Code == "unknown_member" && f.Path == path, "%v %s: %+v", typ, text, f)
			require.NotEqual(t, int64(0), f.Offset, "%v %s: nothing but encoding/json says so: %v", typ, text, theirs)
		}
		if len(report.Faults) > 0 {
			wrong[path] = true
		}
		body = append(body, text[1:len(text)-1])
	}
	text := []byte("{" + strings.Join(body, ",") + "}")
	if broken || len(wrong) == 0 || strictly(text, typ) == nil {
		return
	}
	all := jsonfault.Explain(text, typ)
	if all.Cut {
		return
	}
	for path := range wrong {
		assert.Condition(t, func() bool {
			for _, f := range all.Faults {
				if strings.HasPrefix(f.Path, path) {
					return true
				}
			}
			return false
		}, "%v %s: %s is not listed in %+v", typ, text, path, all.Faults)
	}
	for _, f := range all.Faults {
		require.Condition(t, func() bool {
			for path := range wrong {
				if strings.HasPrefix(f.Path, path) {
					return true
				}
			}
			return false
		}, "%v %s: %+v", typ, text, f)
	}
}

// What the list says, for types that are easy to get wrong.
func TestExplainOfOddTypes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		of   any
		text string
		want string // path code message, separated by semicolons
	}{
		{struct {
			ID
			N int
		}{}, `{"ID":"a","n":"x"}`, "n wrong_type must be an integer"},
		{struct {
			ID
			N int
		}{}, `{"ID":5}`, "ID wrong_type must be a string"},
		{struct {
			Tagged
			A int `json:"x"`
		}{}, `{"x":1,"c":2}`, "c unknown_member is not a known member"},
		{struct {
			Tagged
			A int `json:"x"`
		}{}, `{"x":"s"}`, "x wrong_type must be an integer"},
		{struct {
			Inner `json:"inner"`
		}{}, `{"c":"v","inner":{"B":1}}`, "c unknown_member is not a known member;inner.B wrong_type must be a string"},
		{struct {
			ID int8 `json:"id,string"`
		}{}, `{"id":5,"ID":"300","iD":"x"}`, "id wrong_type must be an integer inside a string;ID wrong_type is out of range;iD wrong_type must be an integer inside a string"},
		{map[string]map[int]int{}, `{"m":{"a":"x","1":"y"}}`, "m.a invalid has a name that is not an integer in range;m.1 wrong_type must be an integer"},
		{struct{ A [4]byte }{}, `{"a":[1,2,"x",4]}`, "a[2] wrong_type must be an integer"},
		{struct{ A [4]byte }{}, `{"a":"AQ=="}`, "a wrong_type must be an array"},
		{struct{ A json.Number }{}, `{"a":true,"A":"x"}`, "a wrong_type must be a number;A wrong_type must be a number"},
		{map[string]any{}, `{"v":[1,{"w":1e400}]}`, "v[1].w wrong_type is out of range"},
		{struct{ lower }{}, `{"b":"x","lower":1}`, "b wrong_type must be an integer;lower unknown_member is not a known member"},
	} {
		var got []string
		for _, f := range jsonfault.Explain([]byte(test.text), reflect.TypeOf(test.of)).Faults {
			got = append(got, f.Path+" "+f.Code+" "+f.Message)
		}
		assert.Equal(t, test.want, strings.Join(got, ";"), "%T %s", test.of, test.text)
	}
}
