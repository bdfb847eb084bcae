package contract_test

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A validator proves something about our documents only if it takes what is right and finds
// what is wrong. Each broken document is the good one with one text in the place of another.
func TestValidatorsFindWhatIsBroken(t *testing.T) {
	t.Parallel()
	docs, foundBy := documents{}, map[string][]string{}
	for _, version := range []string{"3.1", "3.2"} {
		good := read(t, "testdata/good-"+version+".json")
		docs[version] = good
		for _, b := range brokens {
			require.Equal(t, 1, bytes.Count(good, []byte(b.good)), "%s: %s", version, b.good)
			name := version + " " + b.name
			docs[name] = bytes.Replace(good, []byte(b.good), []byte(b.bad), 1)
			foundBy[name] = strings.Split(b.foundBy, ", ")
			if version == "3.2" && b.in32 != "" {
				foundBy[name] = strings.Split(b.in32, ", ")
			}
		}
	}
	for name, validate := range validators {
		t.Run(name, func(t *testing.T) {
			var broken []string
			for document, by := range foundBy {
				if slices.Contains(by, name) {
					broken = append(broken, document)
				}
			}
			found := validate(t, docs)
			assert.ElementsMatch(t, broken, slices.Collect(maps.Keys(found)), "%v", found)
		})
	}
}

var brokens = []struct {
	name      string
	good, bad string
	foundBy   string
	in32      string // instead of foundBy
}{
	{
		name: "no version of the API", good: `"version": "1.0"`, bad: `"revision": "1.0"`,
		foundBy: "kin-openapi, libopenapi, redocly, spectral",
	},
	{
		name: "a parameter that is nowhere", good: `"in": "path"`, bad: `"in": "nowhere"`,
		foundBy: "kin-openapi, libopenapi, redocly, spectral",
	},
	{
		name: "a reference to nothing", good: `"#/components/schemas/Error"`, bad: `"#/components/schemas/Errors"`,
		foundBy: "kin-openapi, libopenapi, redocly, spectral",
	},
	{
		name: "a member that nobody knows", good: `"summary": "Get a price"`, bad: `"summery": "Get a price"`,
		foundBy: "kin-openapi, libopenapi, redocly, spectral",
	},
	{
		name: "a response without a description", good: `"description": "There is no such pair.",`, bad: ``,
		foundBy: "kin-openapi, libopenapi, redocly, spectral",
		in32:    "kin-openapi, redocly", // 3.2 does not need one
	},
	{
		name: "a status that is none", good: `"404"`, bad: `"4"`,
		foundBy: "libopenapi, redocly, spectral",
	},
	{
		name: "a path parameter that is not described", good: `"/prices/{pair}"`, bad: `"/prices/{pair}/{day}"`,
		foundBy: "kin-openapi, redocly, spectral",
	},
	{
		name: "two operations of one name", good: `"putPrice"`, bad: `"getPrice"`,
		foundBy: "kin-openapi, redocly, spectral",
		in32:    "kin-openapi, redocly", // the other is a QUERY, which spectral does not look at
	},
	{
		name: "an example of another type", good: `"retry_after": 3`, bad: `"retry_after": "soon"`,
		foundBy: "kin-openapi, redocly, spectral",
	},
	{
		name: "a security scheme that is not there", good: `{"bearer": []}`, bad: `{"token": []}`,
		foundBy: "kin-openapi, redocly",
		in32:    "redocly",
	},
	{
		name: "a type that is none", good: `"type": "integer"`, bad: `"type": "integers"`,
		foundBy: "kin-openapi, redocly, spectral",
	},
	{
		name: "an operation without a name", good: `"operationId": "getPrice",`, bad: ``,
		foundBy: "redocly, spectral",
	},
	{
		name: "a component that nothing uses", good: `"schemas": {`, bad: `"schemas": {"Unused": {"type": "string"}, `,
		foundBy: "redocly, spectral",
	},
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return text
}
