package admit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

func TestSuccess(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		data   any
		body   string
	}{
		"data":       {200, map[string]any{"a": "<b>&"}, `{"result":"success","data":{"a":"<b>&"}}` + "\n"},
		"created":    {201, []int{1, 2}, `{"result":"success","data":[1,2]}` + "\n"},
		"no data":    {202, nil, `{"result":"success"}` + "\n"},
		"null":       {200, (*int)(nil), `{"result":"success","data":null}` + "\n"},
		"no content": {204, "ignored", ""},
	} {
		h := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return admit.Success(w, r, test.status, test.data)
		})
		w, head := httptest.NewRecorder(), httptest.NewRecorder()
		h.ServeHTTP(w, get("/"))
		h.ServeHTTP(head, newRequest("HEAD", "/", ""))
		assert.Equal(t, test.status, w.Code, name)
		assert.Equal(t, test.body, w.Body.String(), name)
		assert.Equal(t, w.Header(), head.Header(), name)
		assert.Zero(t, head.Body.Len(), name)
	}
}

func TestSuccessKeepsATypeOfJSON(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{
		"application/vnd.api+json": "application/vnd.api+json", "application/json; charset=utf-8": "application/json; charset=utf-8",
		"text/plain": jsonType, "application/x-ndjson": jsonType, "nonsense": jsonType, "": jsonType, "application/*+json": jsonType,
	} {
		h := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", set)
			return admit.Success(w, r, 200, nil)
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, get("/"))
		assert.Equal(t, []string{want}, w.Header()["Content-Type"], set)
	}
}

func TestSuccessFailsBeforeItWrites(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		data   any
	}{{200, math.NaN()}, {200, func() {}}, {404, nil}, {302, nil}, {0, nil}, {600, nil}} {
		refused(t, admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return admit.Success(w, r, test.status, test.data)
		}), get("/"), 500)
	}
}

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
	Hidden   string         `json:"-"`
	Plain    uint
	base
}

type base struct {
	Source string `json:"source"`
}

type item struct {
	SKU string `json:"sku"`
	N   int    `json:"n"`
}

func TestDecode(t *testing.T) {
	t.Parallel()
	var got order
	h := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) (err error) {
		got, err = admit.Decode[order](r)
		return err
	})
	allowed(t, h, newRequest("POST", "/", ` {"pair":"btc","quantity":7,"items":[{"sku":"a","n":1}],"labels":{"x":1},
		"at":"2026-01-02T03:04:05Z","from":"::1","raw":"AQ==","big":"12","any":{"z":[1]},"left":{"pair":"eth"},
		"fixed":[true,false],"PLAIN":4,"source":"s"} `))
	assert.Equal(t, "btc", got.Pair)
	assert.Equal(t, item{"a", 1}, got.Items[0])
	assert.Equal(t, netip.IPv6Loopback(), *got.From)
	assert.Equal(t, uint(4), got.Plain)
	assert.Equal(t, "eth", got.Left.Pair)
	allowed(t, h, newRequest("POST", "/", "\ufeff {}"))
}

// Null is a value for a pointer, an interface, and a type that has a method for it.
func TestDecodeOfNull(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err     error
		message string
	}{
		"struct":     {decodeAs[item]("null"), "must be an object"},
		"map":        {decodeAs[map[string]int](" null"), "must be an object"},
		"slice":      {decodeAs[[]int]("null\n"), "must be an array"},
		"array":      {decodeAs[[2]int]("null"), "must be an array"},
		"bytes":      {decodeAs[[]byte]("null"), "must be a string in base64"},
		"int":        {decodeAs[int]("null"), "must be an integer"},
		"text":       {decodeAs[netip.Addr]("null"), "must be a string"},
		"pointer":    {decodeAs[*item]("null"), ""},
		"any":        {decodeAs[any]("null"), ""},
		"raw":        {decodeAs[json.RawMessage]("null"), ""},
		"a time":     {decodeAs[time.Time]("null"), ""},
		"of members": {decodeAs[order](`{"pair":null,"items":null,"labels":null,"left":null,"fixed":null,"any":null,"big":null}`), ""},
	} {
		if test.message == "" {
			assert.NoError(t, test.err, name)
			continue
		}
		var e *admit.Error
		require.ErrorAs(t, test.err, &e, name)
		assert.Equal(t, 422, e.Status, name)
		assert.Equal(t, []admit.FieldError{{Code: "wrong_type", Message: test.message}}, e.Fields, name)
	}
}

// A Go array takes no more than it has room for, and leaves the rest zero.
func TestDecodeOfArrays(t *testing.T) {
	t.Parallel()
	for body, path := range map[string]string{
		`[[1,2],[3,4,5]]`: "[1]", `[[1,2],[3,4],[]]`: "", `[[1],[]]`: "ok", `[]`: "ok", `[null]`: "ok",
	} {
		err := decodeAs[[2][2]int](body)
		if path == "ok" {
			assert.NoError(t, err, body)
			continue
		}
		var e *admit.Error
		require.ErrorAs(t, err, &e, body)
		assert.Equal(t, []admit.FieldError{{Path: path, Code: "invalid", Message: "must have 2 elements or fewer"}}, e.Fields, body)
	}
	assert.Error(t, decodeAs[order](`{"left":{"fixed":[true,true,true]}}`))
	assert.Error(t, decodeAs[map[string][][1]any](`{"a":[[{"b":[1,2]}],["x",[1]]]}`))
	assert.NoError(t, decodeAs[map[string][][1]any](`{"a":[[{"b":[1,2]}],["x"]]}`))
}

func decodeAs[T any](body string) error {
	_, err := admit.Decode[T](httptest.NewRequest("POST", "/", strings.NewReader(body)))
	return err
}

// even has a method that says what is wrong in the words of the service.
type even int

var errLookup = admit.NewError(503, "")

func (n *even) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "1":
		return admit.NewError(422, "must be even")
	case "3":
		return fmt.Errorf("no: %w", &admit.Error{Status: 409, Code: "odd_number"})
	case "5":
		e := admit.NewError(422, "")
		e.Fields = []admit.FieldError{{Path: "low", Code: "a", Message: "b"}, {Path: "[1]", Code: "c", Message: "d"}, {Code: "e", Message: "f"}}
		return e
	case "7":
		return errLookup.WithCause(errors.New("down"))
	case "9":
		return (*admit.Error)(nil)
	}
	return json.Unmarshal(b, (*int)(n))
}

type evenText string

func (evenText) UnmarshalText(b []byte) error { return (*even)(nil).UnmarshalJSON(b) }

// What a type that decodes itself says is for the client, unless it is a failure.
func TestDecodeHearsTheTypes(t *testing.T) {
	t.Parallel()
	type numbers struct {
		N []even              `json:"n"`
		T *evenText           `json:"t"`
		M map[evenText]string `json:"m"`
	}
	for body, want := range map[string]string{
		`{"n":[2,1]}`:             "n[1] invalid must be even",
		`{"n":[3]}`:               "n[0] odd_number is not valid",
		`{"n":[4,5]}`:             "n[1].low a b;n[1][1] c d;n[1] e f",
		`{"n":[9]}`:               "n[0] invalid is not valid",
		`{"n":["x"]}`:             "n[0] invalid is not valid",
		`{"t":"1"}`:               "t invalid must be even",
		`{"t":1}`:                 "t wrong_type must be a string",
		`{"m":{"1":""}}`:          "m.1 invalid must be even",
		`{"x":1,"n":[1],"t":"3"}`: "x unknown_member is not a known member;n[0] invalid must be even;t odd_number is not valid",
	} {
		var e *admit.Error
		require.ErrorAs(t, decodeAs[numbers](body), &e, body)
		assert.Equal(t, 422, e.Status, body)
		var got []string
		for _, f := range e.Fields {
			got = append(got, f.Path+" "+f.Code+" "+f.Message)
		}
		assert.Equal(t, want, strings.Join(got, ";"), body)
	}
	for _, body := range []string{`{"n":[7]}`, `{"n":["x",7]}`, `{"x":1,"t":"7"}`, `{"m":{"7":""}}`} {
		assert.ErrorIs(t, decodeAs[numbers](body), errLookup, body)
	}
	var e *admit.Error
	require.ErrorAs(t, decodeAs[[]even](`[`+strings.Repeat("5,", 19)+`5]`), &e)
	assert.Len(t, e.Fields, 20)
	assert.Contains(t, e.Message, "the first")
}

type unexported struct{ X int }

// A type that encoding/json cannot decode is no fault of the client.
func TestDecodeIntoATypeThatIsNone(t *testing.T) {
	t.Parallel()
	type behind struct{ *unexported }
	for name, err := range map[string]error{
		"embedded pointer":        decodeAs[behind](`{"X":1}`),
		"the same, and a fault":   decodeAs[behind](`{"y":1,"x":null}`),
		"channel":                 decodeAs[[]chan int](`[1]`),
		"function":                decodeAs[[]func()](`[null,1]`),
		"interface":               decodeAs[map[string]error](`{"a":"b"}`),
		"complex":                 decodeAs[struct{ C *complex64 }](`{"C":"1"}`),
		"map with keys of no use": decodeAs[struct{ M map[[1]int]int }](`{"M":{"1":2}}`),
	} {
		var e *admit.Error
		require.ErrorAs(t, err, &e, name)
		assert.Equal(t, 500, e.Status, name)
		assert.ErrorContains(t, err, "encoding/json cannot", name)
	}
	assert.NoError(t, decodeAs[behind](`{}`))
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	h := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		v, err := admit.Decode[order](r)
		assert.Equal(t, order{}, v, "a body that is refused gives nothing")
		return err
	})
	malformed := map[string]string{
		"empty": "", "white space": " \n\t", "truncated": `{"pair":"b`, "malformed": `{"pair":}`, "a word": `nope`,
		"trailing": `{} x`, "a second value": `{}{}`, "trailing after a wrong type": `{"pair":1} x`, "not UTF-8": "{\"pair\":\"\xff\"}",
		"a comment": `{} // c`, "a bracket too many": `{}]`, "single quotes": `{'pair':'b'}`,
		"two byte order marks": "\ufeff\ufeff{}", "a byte order mark alone": "\ufeff ", "a byte order mark inside": "{\ufeff}",
	}
	for name, body := range malformed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := refused(t, h, newRequest("POST", "/", body), 400)
			assert.Equal(t, "bad_request", e.Code)
			assert.Empty(t, e.Errors)
		})
	}
	invalid := map[string]struct {
		body  string
		wants string // path code message, separated by semicolons
	}{
		"wrong type":             {`{"pair":1}`, "pair wrong_type must be a string"},
		"unknown":                {`{"nope":{"a":[1]}}`, "nope unknown_member is not a known member"},
		"unknown in a list":      {`{"items":[{"sku":"a"},{"skU":"b","pair":"x"}]}`, "items[1].pair unknown_member is not a known member"},
		"known elsewhere only":   {`{"pair":"x","left":{"sku":"b"}}`, "left.sku unknown_member is not a known member"},
		"wrong type in a list":   {`{"items":[{"n":1},{"n":"1"}]}`, "items[1].n wrong_type must be an integer"},
		"wrong type in a map":    {`{"labels":{"x":true}}`, "labels.x wrong_type must be an integer"},
		"a list for an object":   {`{"left":[1,{"a":2}],"plain":0}`, "left wrong_type must be an object"},
		"an object for a list":   {`{"items":{"a":{"b":[1]}},"plain":0}`, "items wrong_type must be an array"},
		"a word for a list":      {`{"fixed":7}`, "fixed wrong_type must be an array"},
		"a fraction":             {`{"quantity":1.5}`, "quantity wrong_type must be an integer"},
		"out of range":           {`{"quantity":300}`, "quantity wrong_type is out of range"},
		"negative":               {`{"plain":-1}`, "plain wrong_type is out of range"},
		"float out of range":     {`{"price":1e300}`, "price wrong_type is out of range"},
		"text for a float":       {`{"price":"1"}`, "price wrong_type must be a number"},
		"text for a bool":        {`{"fixed":[true,"x"]}`, "fixed[1] wrong_type must be true or false"},
		"a bad time":             {`{"at":"yesterday"}`, "at invalid is not valid"},
		"a bad address":          {`{"left":{"from":"nowhere"}}`, "left.from invalid is not valid"},
		"not base64":             {`{"raw":"%"}`, "raw invalid is not valid"},
		"a number for base64":    {`{"raw":1}`, "raw wrong_type must be a string in base64"},
		"the string option":      {`{"big":12}`, "big wrong_type must be an integer inside a string"},
		"a hidden member":        {`{"Hidden":"x"}`, "Hidden unknown_member is not a known member"},
		"the name of the struct": {`{"base":{}}`, "base unknown_member is not a known member"},
		"all of them":            {`{"pair":1,"x":1,"items":[{"n":""}]}`, "pair wrong_type must be a string;x unknown_member is not a known member;items[0].n wrong_type must be an integer"},
		"too long":               {`{"fixed":[true,true,true]}`, "fixed invalid must have 2 elements or fewer"},
		"out of range in any":    {`{"any":[1,{"w":1e400}]}`, "any[1].w wrong_type is out of range"},
		"not an object":          {`[1]`, " wrong_type must be an object"},
		"at most 20":             {`{"items":[` + strings.Repeat(`{"n":""},`, 30) + `{}]}`, "20"},
	}
	for name, test := range invalid {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := refused(t, h, newRequest("POST", "/", test.body), 422)
			assert.Equal(t, "unprocessable", e.Code)
			if test.wants == "20" {
				assert.Len(t, e.Errors, 20)
				return
			}
			var got []string
			for _, f := range e.Errors {
				got = append(got, f.Path+" "+f.Code+" "+f.Message)
			}
			assert.Equal(t, test.wants, strings.Join(got, ";"))
		})
	}
}

func TestDecodeReadsTheBody(t *testing.T) {
	t.Parallel()
	h := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := admit.Decode[string](r)
		return err
	})
	request := func(body io.Reader) *http.Request {
		r := httptest.NewRequest("POST", "/", body)
		r.ContentLength = -1
		return r
	}
	text := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	allowed(t, h, request(strings.NewReader(text(1<<20))))
	e, _ := refused(t, h, request(strings.NewReader(text(1<<20+1))), 413)
	assert.Equal(t, "body_too_large", e.Code)
	refused(t, h, newRequest("POST", "/", text(1<<20+1)), 413)
	refused(t, h, request(http.MaxBytesReader(nil, io.NopCloser(strings.NewReader(text(100))), 99)), 413)
	refused(t, h, request(iotest.ErrReader(io.ErrUnexpectedEOF)), 400)
	refused(t, h, request(iotest.ErrReader(errors.New("reset"))), 400)
	e, _ = refused(t, h, request(iotest.ErrReader(os.ErrDeadlineExceeded)), 408)
	assert.Equal(t, "request_timeout", e.Code)
	refused(t, h, request(iotest.ErrReader(admit.NewError(408, ""))), 408)
	r := get("/")
	r.Body = nil
	refused(t, h, r, 400)
}

// Decode inside MaxBody knows its bound, also where others put a reader around the body.
func TestDecodeKnowsTheBoundThroughOthers(t *testing.T) {
	t.Parallel()
	h := wrap(admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		r.Body = http.MaxBytesReader(nil, r.Body, 1<<30)
		_, err := admit.Decode[string](r)
		return err
	}), admit.MaxBody(3<<20))
	allowed(t, h, newRequest("POST", "/", `"`+strings.Repeat("x", 2<<20)+`"`))
	large := newRequest("POST", "/", `"`+strings.Repeat("x", 3<<20)+`"`)
	large.ContentLength = -1
	refused(t, h, large, 413)
}

// A body that names faults by the longest path it can makes neither much work nor a
// long answer.
func TestFaultsOfADecodeAreBounded(t *testing.T) {
	h := admit.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		_, err := admit.Decode[map[string][]int](r)
		return err
	})
	name := strings.Repeat("k", 256<<10)
	for _, body := range []string{
		fmt.Sprintf(`{%q:["x"%s]}`, name, strings.Repeat(",1", 128<<10)),
		fmt.Sprintf(`{%q:["x"%s]}`, name, strings.Repeat(`,"x"`, 64<<10)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, newRequest("POST", "/", body))
		runtime.ReadMemStats(&after)
		assert.Equal(t, 422, w.Code)
		assert.Less(t, w.Body.Len(), 10<<10)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "paths are not written out for values without a fault")
		e := readEnvelope(t, w.Code, w.Header(), w.Body.Bytes())
		assert.Equal(t, name[:256]+"...", e.Errors[0].Path)
	}
}

// Decode takes what encoding/json takes as one whole value, null and arrays that are too
// long apart, and nothing else; a
// refusal is 400 for what is not JSON, else 422 with at least one path.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{}`, `{"pair":1}`, `[`, `{"items":[{"n":"x"}]}`, `null`, `{"left":{"left":{"x":1}}}`, `{"items":{"a":[]}}`, `{"fixed":[[]]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		_, err := admit.Decode[order](httptest.NewRequest("POST", "/", strings.NewReader(body)))
		var v order
		dec := json.NewDecoder(strings.NewReader(strings.TrimPrefix(body, "\ufeff")))
		dec.DisallowUnknownFields()
		theirs := dec.Decode(&v)
		if err == nil {
			require.NoError(t, theirs)
			return
		}
		var e *admit.Error
		require.ErrorAs(t, err, &e)
		switch e.Status {
		case 400:
			require.Empty(t, e.Fields)
		case 422:
			require.True(t, json.Valid([]byte(strings.TrimPrefix(body, "\ufeff"))))
			require.NotEmpty(t, e.Fields)
			if theirs == nil { // it forgives more
				for _, f := range e.Fields {
					require.True(t, f.Path == "" && strings.Contains(body, "null") || strings.HasSuffix(f.Path, "fixed"), "%+v", f)
				}
			}
		default:
			t.Fatalf("status %d", e.Status)
		}
	})
}
