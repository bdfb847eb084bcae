package jsonfault

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// Position returns the line and the column of an offset, in bytes and from 1.
func Position(text []byte, offset int64) (line, column int) {
	before := text[:min(max(offset, 0), int64(len(text)))]
	return bytes.Count(before, []byte("\n")) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}

// Syntax returns the offset from which text is not one JSON value any more, and the reason. The error
// is nil if text is one JSON value.
func Syntax(text []byte) (int64, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	err := dec.Decode(&skipped{})
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return syntax.Offset - offsetBeyond, err
	case errors.Is(err, io.EOF):
		return 0, errors.New("the file is empty")
	case err != nil:
		return int64(len(text)), err
	}
	rest := bytes.TrimLeft(text[dec.InputOffset():], " \t\r\n")
	if len(rest) > 0 {
		return int64(len(text) - len(rest)), errors.New("there is more after the end")
	}
	return 0, nil
}

// skipped accepts any value, and drops it.
type skipped struct{}

func (*skipped) UnmarshalJSON([]byte) error { return nil }
