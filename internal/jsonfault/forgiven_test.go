package jsonfault_test

//lint:file-ignore SA5008 these types are what encoding/json forgives
//lint:file-ignore U1000 the same

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/admit-go/admit/internal/jsonfault"
)

type (
	silent    struct{ hidden int }
	ambiguous struct{ AB, Ab int }
	misused   struct {
		T time.Time `json:"t,string"`
		S []int     `json:"s,string"`
		P **int     `json:"p,string"`
		A any       `json:"a,string"`
		N int       `json:"n,string"`
	}
	malformed struct {
		A int `json:"a,omitempty,"`
		B int `json:"'b"`
	}
	number   int
	embedded struct {
		number
		*Exported
		N json.Number
	}
	Exported  struct{ E int }
	forgivens struct {
		Silent    silent
		Ambiguous ambiguous
		Misused   misused
		Malformed malformed
		Embedded  embedded
		Order     *order
	}
)

// Decode takes what encoding/json takes, and leaves the same value, whatever the type
// and whatever encoding/json stands on.
func TestDecodeIsThatOfEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `null`, `{"Silent":{}}`, `{"Silent":{"hidden":1}}`, `{"Silent":1}`, `{"Ambiguous":{"ab":1}}`, `{"Ambiguous":{"AB":1,"Ab":2}}`, `{"Ambiguous":{"aB":""}}`,
		`{"Misused":{"t":"2026-01-02T03:04:05Z","s":[1],"a":{"x":[]},"n":"1"}}`, `{"Misused":{"t":1}}`, `{"Misused":{"n":1}}`, `{"Misused":{"s":"[1]"}}`, `{"Misused":{"p":1}}`, `{"Misused":{"p":"1"}}`, `{"Misused":{"t":null,"s":null,"p":null,"n":null}}`,
		`{"Malformed":{"a":1}}`, `{"Malformed":{"'b":1}}`, `{"Malformed":{"B":1}}`,
		`{"Embedded":{"E":null}}`, `{"Embedded":{"E":1}}`, `{"Embedded":{"number":1}}`, `{"Embedded":{"N":1}}`, `{"Embedded":{"N":"1"}}`, `{"Embedded":{"N":"x"}}`,
		`{"Silent":{},"Order":{"pair":"x","left":{"items":[{"n":1}],"any":[1,{"a":null}]},"fixed":[true,true,true],"raw":[1,2]}}`,
		`{"Silent":{},"Order":{"pair":1}}`, `{"Order":{"raw":["x"]}}`, `{"Order":{"labels":{"a":1,"a":2}}}`, `{"Order":{"fixed":[true]}}`, `{"Order":{"x":1},"Silent":{}}`, `{"Order":{"labels":{"a":"\ud800"}}}`,
	} {
		var ours, theirs forgivens
		dec := json.NewDecoder(strings.NewReader(text))
		dec.DisallowUnknownFields()
		want := dec.Decode(&theirs)
		got := jsonfault.NewReader([]byte(text)).Decode(&ours)
		assert.Equal(t, want == nil, got == nil, "%s: %v, not %v", text, got, want)
		if want == nil {
			assert.Equal(t, theirs, ours, text)
		}
	}
}
