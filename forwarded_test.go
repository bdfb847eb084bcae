package admit_test

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// grammar reads a text by the rules of a grammar, one function for each, from left to right.
type grammar struct {
	text string
	at   int
	ok   bool // so far
}

func (g *grammar) next() byte {
	if g.at == len(g.text) {
		return 0
	}
	return g.text[g.at]
}

func (g *grammar) take(c byte) bool {
	if g.next() != c || g.at == len(g.text) {
		return false
	}
	g.at++
	return true
}

// must takes c.
func (g *grammar) must(c byte) { g.ok = g.take(c) && g.ok }

// ows is OWS of RFC 9110 §5.6.3.
func (g *grammar) ows() {
	for g.take(' ') || g.take('\t') {
	}
}

// token is that of RFC 9110 §5.6.2.
func (g *grammar) token() string {
	begin := g.at
	for c := g.next(); c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", c) >= 0; c = g.next() {
		g.at++
	}
	g.ok = g.ok && g.at > begin
	return g.text[begin:g.at]
}

// quoted is quoted-string of RFC 9110 §5.6.4.
func (g *grammar) quoted() string {
	var value []byte
	for g.must('"'); g.ok && !g.take('"'); g.at++ {
		escaped := g.take('\\')
		c := g.next()
		text := c == '\t' || c >= ' ' && c != 0x7f
		if g.ok = text && (escaped || c != '"' && c != '\\'); !g.ok {
			break
		}
		value = append(value, c)
	}
	return string(value)
}

// forwarded is Forwarded of RFC 7239 §4: the "for" of each element from left to right, "" in
// one that has none. A list has empty elements too (RFC 9110 §5.6.1).
func (g *grammar) forwarded() (nodes []string) {
	for g.ok {
		g.ows()
		if g.next() != ',' && g.at < len(g.text) {
			nodes = append(nodes, g.element())
		}
		g.ows()
		if g.at == len(g.text) {
			break
		}
		g.must(',')
	}
	return nodes
}

// element is forwarded-element, in which no name occurs twice.
func (g *grammar) element() (node string) {
	seen := map[string]bool{}
	for g.ok {
		if c := g.next(); c != ';' && c != ',' && c != ' ' && c != '\t' && g.at < len(g.text) {
			name := strings.ToLower(g.token())
			g.must('=')
			var value string
			if g.next() == '"' {
				value = g.quoted()
			} else {
				value = g.token()
			}
			g.ok = g.ok && !seen[name]
			seen[name] = true
			if name == "for" {
				node = value
			}
		}
		if !g.take(';') {
			break
		}
	}
	return node
}

// nodeAddress is the address of a node (RFC 7239 §6), or the invalid Addr for unknown or an
// obfuscated one; ok says whether text is a node.
func nodeAddress(text string) (addr netip.Addr, ok bool) {
	name, port := text, ""
	if end := strings.LastIndexByte(text, ']'); end >= 0 {
		name, port = text[:end+1], text[end+1:]
	} else if i := strings.IndexByte(text, ':'); i >= 0 {
		name, port = text[:i], text[i:]
	}
	switch digits := strings.Trim(port, "0123456789"); {
	case port == "":
	case digits == ":" && port[0] == ':':
		if _, err := strconv.ParseUint(port[1:], 10, 16); err != nil {
			return addr, false // the grammar has up to 99999
		}
	case strings.HasPrefix(port, ":_") && len(port) > 2 && isObfuscated(port[1:]):
	default:
		return addr, false
	}
	switch {
	case strings.EqualFold(name, "unknown"), isObfuscated(name):
		return addr, true
	case strings.HasPrefix(name, "["):
		addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
		return addr.Unmap(), err == nil && addr.Is6() && addr.Zone() == "" && name == "["+strings.Trim(name, "[]")+"]"
	default:
		addr, err := netip.ParseAddr(name)
		return addr, err == nil && addr.Is4()
	}
}

// isObfuscated is obfnode and obfport.
func isObfuscated(s string) bool {
	return len(s) > 1 && s[0] == '_' &&
		strings.Trim(s, "._-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// What RFC 7239 can say is read as it says; the reader here goes from left to right and
// knows every rule, ClientIP from right to left and stops early.
func FuzzForwardedGrammar(f *testing.F) {
	for _, seed := range []string{
		"", "for=192.0.2.1", `For="[2001:db8:cafe::17]:4711"`, "for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com",
		"for=unknown, for=_hidden, for=_SEVKISEK", `for="192.0.2.43:_x",for="_gazonk"`, `by=_b;for=192.0.2.1 ,, for="\[2001:db8::1\]"`,
		`host="a,for=6.6.6.6;x";for=10.0.0.2`, `host="\",for=6.6.6.6";for=10.0.0.2, for=10.0.0.3`, `for="10.0.0.1:99999"`, `for="[::ffff:192.0.2.1]"`,
		";for=192.0.2.1;", `for=""`, `for="unknown:1"`, "for=10.0.0.1;;by=x",
	} {
		f.Add(seed, "")
		f.Add("for=10.0.0.9", seed)
	}
	wrapper := admit.ClientIP("Forwarded", netip.MustParsePrefix("10.0.0.0/8"))
	f.Fuzz(func(t *testing.T, first, second string) {
		g := &grammar{text: first + "," + second, ok: true} // two lines are one list (RFC 9110 §5.2)
		nodes := g.forwarded()
		if !g.ok {
			return
		}
		alone := &grammar{text: second, ok: true}
		if alone.forwarded(); !alone.ok {
			return // a quoted string from one line into the next
		}
		want := netip.MustParseAddr("10.0.0.1")
		for i := len(nodes) - 1; i >= 0 && netip.MustParsePrefix("10.0.0.0/8").Contains(want); i-- {
			addr, ok := nodeAddress(nodes[i])
			if !ok && nodes[i] != "" {
				return
			}
			if !addr.IsValid() {
				break
			}
			want = addr
		}
		var got netip.Addr
		r := get("/")
		r.RemoteAddr, r.Header["Forwarded"] = "10.0.0.1:1", []string{first, second}
		wrapper(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = admit.ClientIPFrom(r) })).ServeHTTP(newDiscard(), r)
		require.Equal(t, want, got)
	})
}

// Whatever a client sends, and whatever a proxy of ours passes on of it within quotes, the
// address is the one that the proxy has seen.
func FuzzForwardedHost(f *testing.F) {
	for _, seed := range []string{"", `a"`, `",for=6.6.6.6`, `\`, `\",for=6.6.6.6;x="`, ";for=6.6.6.6", `"`, "for=6.6.6.6;host=\""} {
		f.Add(seed, seed, true)
		f.Add(seed, seed, false)
	}
	wrapper := admit.ClientIP("Forwarded", netip.MustParsePrefix("10.0.0.0/8"))
	f.Fuzz(func(t *testing.T, sent, host string, sameLine bool) {
		ours := `for=203.0.113.7;host="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(host) + `";proto=https`
		lines := []string{sent, ours}
		if sameLine {
			lines = []string{sent + ", " + ours}
		}
		var got netip.Addr
		r := get("/")
		r.RemoteAddr, r.Header["Forwarded"] = "10.0.0.1:1", lines
		wrapper(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = admit.ClientIPFrom(r) })).ServeHTTP(newDiscard(), r)
		require.Equal(t, "203.0.113.7", got.String())
	})
}
