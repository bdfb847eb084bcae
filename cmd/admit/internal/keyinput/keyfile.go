package keyinput

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"regexp"

	"github.com/admit-go/admit/internal/jsonfault"
)

// keyFormat is the latest format of key files that Parse reads.
const keyFormat = 2

var keyFileStart = regexp.MustCompile(`^\s*\{\s*"(format|keys)"$`)

// isKeyFile reports whether a text is a key file: the first name of its object is format or
// keys, which no line of JSON lines has. It reads no further than that name.
func isKeyFile(in *bufio.Reader) bool {
	quotes := 0
	for n := 1; n <= in.Size(); n++ {
		head, _ := in.Peek(n)
		if len(head) < n {
			return false
		}
		if head[n-1] == '"' {
			quotes++
		}
		if quotes == 2 {
			return keyFileStart.Match(head)
		}
	}
	return false
}

// keyFile reads a whole key file. Each of its keys is an object as in JSON lines.
func (p *parser) keyFile(text []byte) {
	if !p.isUTF8(text, 1) {
		return
	}
	if offset, err := jsonfault.Syntax(text); err != nil { // which may repeat names of the text
		line, column := jsonfault.Position(text, offset)
		p.fault(line, fmt.Errorf("column %d: the key file is not well-formed JSON from here on", column))
		return
	}
	in := jsonfault.NewReader(text)
	err := in.Enter()
	seen := map[string]bool{}
	for err == nil && !p.full() && in.More() {
		offset := in.Next()
		var name string
		if name, err = in.Name(); err != nil {
			break
		}
		line, column := jsonfault.Position(text, offset)
		fault := func(says string, args ...any) {
			p.fault(line, fmt.Errorf("column %d: "+says, append([]any{column}, args...)...))
		}
		if seen[name] {
			fault("the member %s is duplicated", shown(name))
		}
		seen[name] = true
		switch format := 0; {
		case name == "keys" && in.Peek() == '[':
			err = p.keys(in, text)
		case name == "format" && in.Decode(&format) == nil && format >= 1:
			if format > keyFormat {
				p.faults = nil // they come from the later format
				fault("the key file has format %d, of a newer release of admit: import it with that release", format)
				return
			}
		case name == "keys":
			fault(`"keys" must be an array`)
			err = in.Skip()
		case name == "format":
			fault(`"format" must be a number, 1 or more`)
		default:
			fault("%s is not a known member of a key file", shown(name))
			err = in.Skip()
		}
	}
	switch {
	case err != nil:
		p.fault(1, errors.New("the key file is not well-formed JSON"))
	case !seen["keys"]:
		p.fault(1, errors.New(`the key file has no member "keys"`))
	}
}

// keys reads the array of keys, which is next.
func (p *parser) keys(in *jsonfault.Reader, text []byte) error {
	err := in.Enter()
	line, lineBegin, counted := 1, int64(0), int64(0) // each byte is counted once: a file may be long, and one line
	for err == nil && in.More() && !p.full() {
		begin := in.Next()
		between := text[counted:begin]
		line += bytes.Count(between, []byte("\n"))
		if last := bytes.LastIndexByte(between, '\n'); last >= 0 {
			lineBegin = counted + int64(last) + 1
		}
		counted = begin
		if err = in.Skip(); err == nil {
			p.object(text[begin:in.End()], line, begin-lineBegin)
		}
	}
	if err != nil || p.full() {
		return err
	}
	return in.Leave()
}
