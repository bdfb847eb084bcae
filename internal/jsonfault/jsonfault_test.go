package jsonfault_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/internal/jsonfault"
)

// order has members of all kinds that an API knows.
type order struct {
	Pair     string         `json:"pair"`
	Quantity int8           `json:"quantity"`
	Price    float32        `json:"price"`
	Items    []item         `json:"items"`
	Labels   map[string]int `json:"labels"`
	At       time.Time      `json:"at"`
	From     *netip.Addr    `json:"from"`
	Raw      []byte         `json:"raw"`
	Big      int            `json:"big,string"`
	Any      any            `json:"any"`
	Left     *order         `json:"left"`
	Fixed    [2]bool        `json:"fixed"`
	Numbers  map[string][]int
}

type item struct {
	SKU string `json:"sku"`
	N   int    `json:"n"`
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{ // path:code@offset, separated by blanks
		`{"pair":1}`: "pair:wrong_type@8",
		` [1]`:       ":wrong_type@1",
		`{"left": {"left":{"x": 1}, "price": "1"}}`:     "left.left.x:unknown_member@18 left.price:wrong_type@36",
		`{"items":[{}, {"n":1.5}]}`:                     "items[1].n:wrong_type@19",
		`{"items":{"a":[1,{"b":2}]}, "pair":[]}`:        "items:wrong_type@9 pair:wrong_type@35",
		`{"raw":"%"}`:                                   "raw:invalid@7",
		`{"raw":["",1]}`:                                "raw[0]:wrong_type@8",
		`{"at":"x","from":"y"}`:                         "at:invalid@6 from:invalid@17",
		`{"big":1}`:                                     "big:wrong_type@7",
		`{"PAIR":1,"Numbers":{"a":[1,null,"x"],"b":0}}`: "PAIR:wrong_type@8 Numbers.a[2]:wrong_type@33 Numbers.b:wrong_type@42",
		`null`:                          ":wrong_type@0",
		`{}`:                            ":invalid@0",
		`{"quantity":1,"quantity":300}`: "quantity:wrong_type@25",
	} {
		var got []string
		for _, f := range jsonfault.Explain([]byte(text), reflect.TypeFor[order]()).Faults {
			got = append(got, fmt.Sprintf("%s:%s@%d", f.Path, f.Code, f.Offset))
			assert.NotEmpty(t, f.Message)
		}
		assert.Equal(t, want, strings.Join(got, " "), text)
	}
	assert.Empty(t, jsonfault.Forgiven([]byte(`{"pair":null,"fixed":[true,true]}`), reflect.TypeFor[order]()).Faults)
	many := jsonfault.Explain([]byte(`[`+strings.Repeat(`"",`, 100)+`""]`), reflect.TypeFor[[]int]()).Faults
	assert.Len(t, many, jsonfault.MaxFaults)
}

// The list ends after 20 faults, and a while after the first; the report says so if there
// was more to look at.
func TestExplainEnds(t *testing.T) {
	t.Parallel()
	type numbers struct {
		N []int
		M map[string]any
		S float64 `json:",string"`
	}
	ones := func(n int) string { return strings.Repeat("1,", n-1) + "1" }
	for name, test := range map[string]struct {
		text   string
		faults int
		cut    bool
	}{
		"all after the first":      {`{"q":1,"N":[` + ones(9_000) + `],"r":1}`, 2, false},
		"too many after the first": {`{"q":1,"N":[` + ones(11_000) + `],"r":1}`, 1, true},
		"with an option":           {`{"q":1` + strings.Repeat(`,"S":"1"`, 11_000) + `,"r":1}`, 1, true},
		"in an interface":          {`{"q":1,"M":{"a":{"b":[` + ones(11_000) + `]}},"r":1}`, 1, true},
		"all before the first":     {`{"N":[` + ones(11_000) + `],"r":1}`, 1, false},
		"20":                       {`{"N":["",` + strings.Repeat(`"",`, 18) + `""]}`, 20, false},
		"20, and more":             {`{"N":["",` + strings.Repeat(`"",`, 18) + `"",1]}`, 20, true},
		"20, and more outside":     {`{"N":["",` + strings.Repeat(`"",`, 18) + `""],"M":{}}`, 20, true},
	} {
		report := jsonfault.Explain([]byte(test.text), reflect.TypeFor[numbers]())
		assert.Len(t, report.Faults, test.faults, name)
		assert.Equal(t, test.cut, report.Cut, name)
		assert.NoError(t, report.Type, name)
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	r := jsonfault.NewReader([]byte(" {\"a\" : [1 , {\"sku\":\"x\"}],\n \"b\":null} "))
	assert.Equal(t, byte('{'), r.Peek())
	require.NoError(t, r.Enter())
	require.True(t, r.More())
	assert.Equal(t, int64(2), r.Next())
	name, err := r.Name()
	require.NoError(t, err)
	assert.Equal(t, "a", name)
	assert.Equal(t, byte('['), r.Peek())
	require.NoError(t, r.Enter())
	require.NoError(t, r.Skip())
	assert.True(t, r.More())
	assert.Equal(t, int64(13), r.Next())
	var v item
	require.NoError(t, r.Decode(&v))
	assert.Equal(t, item{SKU: "x"}, v)
	assert.Equal(t, int64(24), r.End())
	assert.False(t, r.More())
	assert.Equal(t, byte(']'), r.Peek())
	require.NoError(t, r.Leave())
	require.True(t, r.More())
	name, err = r.Name()
	require.NoError(t, err)
	assert.Equal(t, "b", name)
	assert.False(t, r.AtEnd())
	require.NoError(t, r.Skip())
	assert.False(t, r.More())
	require.NoError(t, r.Leave())
	assert.True(t, r.AtEnd())
	assert.Zero(t, r.Peek())
	assert.ErrorIs(t, r.Skip(), jsonfault.ErrSyntax)
}

// An error says whether the text is malformed, or well-formed and no T.
func TestReaderTellsFaultsApart(t *testing.T) {
	t.Parallel()
	for text, syntax := range map[string]bool{
		`{"pair":1,}`: true, `{"pair":1`: true, ``: true, `{"pair":tru}`: true, `]`: true,
		`{"pair":1}`: false, `{"x":1}`: false, `[]`: false, `{"raw":"%"}`: false, `{"at":"x"}`: false,
	} {
		var v order
		r := jsonfault.NewReader([]byte(text))
		err := r.Decode(&v)
		require.Error(t, err, text)
		if syntax {
			assert.ErrorIs(t, err, jsonfault.ErrSyntax, text)
		} else {
			assert.NotErrorIs(t, err, jsonfault.ErrSyntax, text)
			assert.True(t, r.AtEnd(), text)
		}
	}
}

func TestPositions(t *testing.T) {
	t.Parallel()
	text := []byte("ab\n\ncd")
	for offset, want := range map[int64][2]int{-1: {1, 1}, 0: {1, 1}, 2: {1, 3}, 3: {2, 1}, 4: {3, 1}, 6: {3, 3}, 99: {3, 3}} {
		line, column := jsonfault.Position(text, offset)
		assert.Equal(t, want, [2]int{line, column}, offset)
	}
	for text, want := range map[string]int64{`[1 2]`: 3, ``: 0, ` `: 0, `{"a":`: 5, `{} x`: 3, `{}}`: 2} {
		at, err := jsonfault.Syntax([]byte(text))
		assert.Error(t, err, text)
		assert.Equal(t, want, at, text)
	}
	_, err := jsonfault.Syntax([]byte(" {} \n"))
	assert.NoError(t, err)
}

// A refusal costs no more than its text, however long the names and however many the
// faults, and so does the explanation. On its own line each: time is what it is about.
func TestRefusalsAreBounded(t *testing.T) {
	name := strings.Repeat("k", 64<<10)
	inside := func(values string) string { return fmt.Sprintf(`{%q:%s}`, name, values) }
	deep := strings.Repeat(`{"left":`, 5000)
	for what, test := range map[string]struct {
		t    reflect.Type
		text string
	}{
		"numbers":        {reflect.TypeFor[map[string][]int](), inside(`["x"` + strings.Repeat(`,""`, 20<<10) + `]`)},
		"one wrong":      {reflect.TypeFor[map[string][]int](), inside(`[""` + strings.Repeat(`,1`, 32<<10) + `]`)},
		"bytes":          {reflect.TypeFor[map[string][]byte](), inside(`[""` + strings.Repeat(`,""`, 20<<10) + `]`)},
		"bytes in array": {reflect.TypeFor[map[string][9]byte](), inside(`[""` + strings.Repeat(`,""`, 20<<10) + `]`)},
		"unknown":        {reflect.TypeFor[map[string]item](), inside(`{"":1` + strings.Repeat(`,"":1`, 13<<10) + `}`)},
		"option string": {reflect.TypeFor[map[string]struct {
			N int `json:",string"`
		}](), inside(`{"n":1` + strings.Repeat(`,"n":1`, 11<<10) + `}`)},
		"a tag at fault": {reflect.TypeFor[map[string][]malformed](), inside(`[""` + strings.Repeat(`,{"a":""}`, 7<<10) + `]`)},
		"times":          {reflect.TypeFor[map[string][]time.Time](), inside(`[""` + strings.Repeat(`,""`, 20<<10) + `]`)},
		"deep":           {reflect.TypeFor[order](), deep + `{"Numbers":{"":[""` + strings.Repeat(`,""`, 20<<10) + `]}` + strings.Repeat("}", 5001)},
	} {
		for range 2 { // the first one makes what encoding/json keeps of the types
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			err := jsonfault.NewReader([]byte(test.text)).Decode(reflect.New(test.t).Interface())
			faults := jsonfault.Explain([]byte(test.text), test.t).Faults
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			require.Error(t, err, what)
			require.NotErrorIs(t, err, jsonfault.ErrSyntax, what)
			assert.NotEmpty(t, faults, what)
			assert.Less(t, took, 10*time.Second, what) // on a machine that does other work; without the bound, minutes
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), what)
		}
	}
}

// spellings returns an object, without its end, with a member in many spellings.
func spellings(name string, n int) string {
	var b strings.Builder
	for i := range n {
		spelled := []byte(name)
		for k := range spelled {
			if i>>k&1 == 1 {
				spelled[k] -= 'a' - 'A'
			}
		}
		fmt.Fprintf(&b, `,%q:1`, spelled)
	}
	return "{" + b.String()[1:]
}

// A member in other letters is found without asking encoding/json, which takes longer.
func TestExplainAllocations(t *testing.T) {
	explain := func(n int) float64 {
		text := []byte(spellings("quantity", n) + `,"x":1}`)
		return testing.AllocsPerRun(10, func() { jsonfault.Explain(text, reflect.TypeFor[order]()) })
	}
	assert.InDelta(t, explain(1), explain(256), 3)
}

// Explain ends for any text. Of one that encoding/json refuses it lists a fault at least,
// and each fault is within its bounds; Decode refuses what encoding/json refuses.
func FuzzExplain(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"pair":1}`, `[`, `{"items":[{"n":"x"}]}`, `null`, `{"left":{"left":{"x":1}}}`, `{"items":{"a":[]}}`, `{"fixed":[[]]}`,
		`{"raw":[1,"x"]}`, `{"big":1}`, `{"Numbers":{"` + strings.Repeat("k", 300) + `":[""]}}`, `{"pair" 1}`, `{"a":1}}`, `{"at":{"x":}`, `{"left":nul`, `{"rAw" "`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var ours, theirs order
		dec := json.NewDecoder(strings.NewReader(text))
		dec.DisallowUnknownFields()
		want := dec.Decode(&theirs)
		got := jsonfault.NewReader([]byte(text)).Decode(&ours)
		require.Equal(t, want == nil, got == nil, "%v, not %v", got, want)
		if want == nil {
			require.Equal(t, theirs, ours)
		}
		faults := jsonfault.Explain([]byte(text), reflect.TypeFor[order]()).Faults
		require.NotEmpty(t, faults)
		require.LessOrEqual(t, len(faults), jsonfault.MaxFaults)
		for _, fault := range faults {
			require.LessOrEqual(t, len(fault.Path), jsonfault.MaxPath+len("..."))
			require.True(t, 0 <= fault.Offset && fault.Offset <= int64(len(text)))
			require.NotEmpty(t, fault.Message)
		}
	})
}
