//go:build goexperiment.jsonv2 && go1.27

package jsonfault

import (
	"bytes"
	"encoding/json"
	"encoding/json/jsontext"
	jsonv2 "encoding/json/v2"
)

// Only this file names what encoding/json has since Go 1.27; its constraint tells tools that it may.

type (
	tokens        = jsontext.Decoder
	semanticError = jsonv2.SemanticError

	unmarshalerFrom = jsonv2.UnmarshalerFrom
)

// offsetBeyond is how far json.SyntaxError.Offset is beyond the first wrong byte.
const offsetBeyond = 1

var errUnknownName = jsonv2.ErrUnknownName

// newTokens reads from text itself, as jsontext does from a bytes.Buffer.
func newTokens(text []byte) *tokens {
	return jsontext.NewDecoder(bytes.NewBuffer(text), json.DefaultOptionsV1())
}

func unmarshalToFirst(text []byte, v any) error {
	return jsonv2.Unmarshal(text, v, json.DefaultOptionsV1(), jsonv2.RejectUnknownMembers(true), json.ReportErrorsWithLegacySemantics(false))
}

func unmarshalAll(text []byte, v any) error {
	return jsonv2.Unmarshal(text, v, json.DefaultOptionsV1(), jsonv2.RejectUnknownMembers(true))
}
