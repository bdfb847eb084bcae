package admit

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/admit-go/admit/internal/mediatype"
)

// ClientIP finds the address of the client behind your proxies. Header is the one header that
// they write: X-Forwarded-For, Forwarded (RFC 7239), or one with a single address, such as
// X-Real-IP. Trusted are the networks of the proxies. The header is read only if the peer is
// trusted, from right to left, and the first address that is not trusted is the client. A peer
// on a Unix socket is trusted, and so is the hop that nginx calls "unix:". ClientIP panics if
// header is not a header name, if there is no trusted network, and if one is invalid.
func ClientIP(header string, trusted ...netip.Prefix) Middleware {
	p, err := newProxies(header, trusted)
	must(err)
	return func(next http.Handler) http.Handler {
		return wrap("ClientIP", next, func(in inside, w http.ResponseWriter, r *http.Request) {
			s, w, inner := in.fill(w, r, slotClientIP)
			defer s.leave(r, inner)
			s.clientIP = p.client(parseAddr(r.RemoteAddr), overUnixSocket(r), r.Header)
			noteClient(s, &s.clientIP)
			in.ServeHTTP(w, inner)
		})
	}
}

// ClientIPFrom returns the address of the client: as found by ClientIP, else that of
// RemoteAddr. An IPv4 address mapped to IPv6 is returned as IPv4. If there is no address, as on
// a Unix socket, it returns the invalid Addr.
func ClientIPFrom(r *http.Request) netip.Addr {
	if s := find(r.Context(), slotClientIP); s != nil {
		return s.clientIP
	}
	return parseAddr(r.RemoteAddr)
}

// clientNetwork returns the address of the client, IPv6 cut to its /64, since a client with one
// of these addresses has them all. It is the invalid Addr if there is none.
func clientNetwork(r *http.Request) netip.Addr {
	addr := ClientIPFrom(r)
	if addr.Is6() {
		network, _ := addr.Prefix(64)
		addr = network.Addr()
	}
	return addr
}

// proxies is the decision of ClientIP.
type proxies struct {
	header    string // canonical
	forwarded bool   // the header has the syntax of RFC 7239
	trusted   []netip.Prefix
}

func newProxies(header string, trusted []netip.Prefix) (*proxies, error) {
	if !mediatype.IsToken(header) {
		return nil, configFault("ClientIP", "has %q, which is not the name of a header; name the one that your proxies write", header)
	}
	if len(trusted) == 0 {
		return nil, configFault("ClientIP", "has no trusted network, so %s would never be read; name the networks of your proxies, or leave ClientIP out to use the address of the peer", header)
	}
	p := &proxies{header: http.CanonicalHeaderKey(header)}
	p.forwarded = p.header == "Forwarded"
	for _, network := range trusted {
		if !network.IsValid() {
			return nil, configFault("ClientIP", "has a trusted network that is not valid: %v; make it with netip.MustParsePrefix or netip.ParsePrefix", network)
		}
		if a := network.Addr(); a.Is4In6() && network.Bits() >= 96 {
			network = netip.PrefixFrom(a.Unmap(), network.Bits()-96)
		}
		p.trusted = append(p.trusted, network.Masked())
	}
	return p, nil
}

// client walks from the peer towards the client as long as the address is that of a trusted
// proxy. If a hop cannot be parsed, the walk ends at the last known address.
func (p *proxies) client(peer netip.Addr, local bool, h http.Header) netip.Addr {
	at := peer
	if !local && !p.trusts(at) {
		return at
	}
	lines := h[p.header]
	for i := len(lines) - 1; i >= 0; i-- {
		rest, more := lines[i], true
		for more {
			var hop string
			rest, hop, more = p.cutLast(rest)
			if hop = strings.Trim(hop, " \t"); hop == "" {
				continue // an empty element of a list counts for nothing (RFC 9110 §5.6.1)
			}
			if p.forwarded {
				hop = forwardedFor(hop)
			}
			if hop == "unix:" {
				continue // the peer of that nginx is a proxy on a Unix socket
			}
			next := parseAddr(hop)
			if !next.IsValid() {
				return at
			}
			if at = next; !p.trusts(at) {
				return at
			}
		}
	}
	return at
}

// overUnixSocket reports whether the peer is on a Unix socket, whether that has a name or not.
// The server knows; without one, as in a test, the form of the address tells. RemoteAddr alone
// is not enough, because some middlewares copy a header into it.
func overUnixSocket(r *http.Request) bool {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return local.Network() == "unix"
	}
	return r.RemoteAddr == "" || r.RemoteAddr[0] == '@' || r.RemoteAddr[0] == '/'
}

func (p *proxies) trusts(a netip.Addr) bool {
	a = a.WithZone("")
	for _, network := range p.trusted {
		if network.Contains(a) {
			return true
		}
	}
	return false
}

// cutLast cuts a list at its last comma. In Forwarded, a comma inside quotes does not count: a
// proxy quotes what its client has chosen, such as the host. The scan starts at the right,
// where the trusted proxy has written; text from the client stands to the left of that.
func (p *proxies) cutLast(list string) (before, last string, more bool) {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		switch {
		case p.forwarded && list[i] == '"' && !(quoted && escaped(list, i)):
			quoted = !quoted
		case list[i] == ',' && !quoted:
			return list[:i], list[i+1:], true
		}
	}
	return "", list, false
}

// escaped reports whether a backslash escapes the byte at i of a quoted string (RFC 9110
// §5.6.4).
func escaped(s string, i int) bool {
	n := 0
	for n < i && s[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// outsideQuotes calls f with the index of each byte that is not in a quoted string (RFC 9110
// §5.6.4). It reports whether the last quoted string ends.
func outsideQuotes(s string, f func(i int)) (ends bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case quoted && s[i] == '\\':
			i++
		case !quoted:
			f(i)
		}
	}
	return !quoted
}

// forwardedFor returns the value of the only "for" parameter in an element of Forwarded (RFC
// 7239 §4), without an obfuscated port (§6.2). It returns "" if there is not exactly one.
func forwardedFor(element string) string {
	node, found, start := "", 0, 0
	pair := func(end int) {
		name, value, _ := strings.Cut(strings.Trim(element[start:end], " \t"), "=")
		if strings.EqualFold(name, "for") {
			node = value
			found++
		}
		start = end + 1
	}
	ends := outsideQuotes(element, func(i int) {
		if element[i] == ';' {
			pair(i)
		}
	})
	if pair(len(element)); !ends || found != 1 {
		return ""
	}
	node = unquote(node)
	if i := strings.LastIndex(node, ":_"); i >= 0 {
		node = node[:i]
	}
	return node
}

// unquote returns the content of a quoted string, and any other value as it is.
func unquote(value string) string {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return value
	}
	var b strings.Builder
	for i := 1; i < len(value)-1; i++ {
		if value[i] == '\\' && i+1 < len(value)-1 {
			i++
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// parseAddr reads an address with or without a port; IPv6 with a port has brackets.
// It returns the invalid Addr for anything else.
func parseAddr(s string) netip.Addr {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		if a, _ := netip.ParseAddr(s[1 : len(s)-1]); a.Is6() {
			return a.Unmap()
		}
		return netip.Addr{}
	}
	if strings.HasPrefix(s, "[") || strings.Count(s, ":") == 1 {
		a, _ := netip.ParseAddrPort(s)
		return a.Addr().Unmap()
	}
	a, _ := netip.ParseAddr(s)
	return a.Unmap()
}
