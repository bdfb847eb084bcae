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
	if offset, err := jsonfault.Syntax(text); err != nil { // which may repeat names of the text
		line, column := jsonfault.Position(text, offset)
		p.fault(line, fmt.Errorf("column %d: the key file is not well-formed JSON from here on", column))
		return
	}
	in := jsonfault.NewReader(text)
	err := in.Enter()
	for seen := map[string]bool{}; err == nil && !p.full() && in.More(); {
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
	if err != nil {
		p.fault(1, errors.New("the key file is not well-formed JSON"))
	}
}

// keys reads the array of keys, which is next.
func (p *parser) keys(in *jsonfault.Reader, text []byte) error {
	err := in.Enter()
	line, counted := 1, int64(0) // lines are counted once, since a key file may be long
	for err == nil && in.More() && !p.full() {
		begin := in.Next()
		line += bytes.Count(text[counted:begin], []byte("\n"))
		counted = begin
		if err = in.Skip(); err == nil {
			first := begin - int64(bytes.LastIndexByte(text[:begin], '\n')) - 1 // the bytes before it in its line
			p.object(text[begin:in.End()], line, first)
		}
	}
	if err != nil || p.full() {
		return err
	}
	return in.Leave()
}
