package jsonfault

// A cursor walks over a text that is well-formed JSON, much faster than a parser that has to check
// that. Over any other text it walks in some way, and ends.
type cursor struct {
	text []byte
	pos  int
}

// peek returns the byte at which the next name, value or closing bracket begins, after
// white space and what separates values; 0 at the end of the text.
func (c *cursor) peek() byte {
	for ; c.pos < len(c.text); c.pos++ {
		switch b := c.text[c.pos]; b {
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			return b
		}
	}
	return 0
}

// more reports whether the object or array has another member or element.
func (c *cursor) more() bool {
	b := c.peek()
	return b != 0 && b != ']' && b != '}'
}

// step steps over a bracket, which must be next.
func (c *cursor) step() {
	c.peek()
	c.pos = min(c.pos+1, len(c.text))
}

// next steps over the next name or value, and returns it as it is written.
func (c *cursor) next() []byte {
	c.peek()
	from := c.pos
	depth := 0
	for c.pos < len(c.text) {
		switch c.text[c.pos] {
		case '"':
			c.skipString()
		case '[', '{':
			c.pos++
			depth++
		case ']', '}':
			c.pos++
			depth--
		default:
			if depth == 0 {
				c.skipWord()
			} else {
				c.pos++
			}
		}
		if depth <= 0 {
			break
		}
	}
	return c.text[from:c.pos]
}

func (c *cursor) skipString() {
	for c.pos++; c.pos < len(c.text); c.pos++ {
		switch c.text[c.pos] {
		case '"':
			c.pos++
			return
		case '\\':
			c.pos++
		}
	}
	c.pos = len(c.text)
}

// skipWord steps over a number, true, false or null.
func (c *cursor) skipWord() {
	for c.pos++; c.pos < len(c.text); c.pos++ {
		switch c.text[c.pos] {
		case ' ', '\t', '\r', '\n', ',', ':', ']', '}', '[', '{', '"':
			return
		}
	}
}
