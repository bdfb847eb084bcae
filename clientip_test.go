package admit_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

var proxyNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("2001:db8:1::/48"),
	netip.MustParsePrefix("::ffff:172.16.0.0/108"), // as good as 172.16.0.0/12
}

func TestClientIP(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		header string // "": X-Forwarded-For
		peer   string
		lines  []string
		want   string
	}{
		"no proxy":                       {peer: "203.0.113.9:1234", want: "203.0.113.9"},
		"an untrusted peer is not heard": {peer: "203.0.113.9:1234", lines: []string{"198.51.100.7"}, want: "203.0.113.9"},
		"a trusted peer is heard":        {peer: "10.0.0.1:1234", lines: []string{"198.51.100.7"}, want: "198.51.100.7"},
		"from right to left":             {peer: "10.0.0.1:1", lines: []string{"1.1.1.1, 198.51.100.7, 10.0.0.2"}, want: "198.51.100.7"},
		"lines are one list":             {peer: "10.0.0.1:1", lines: []string{"1.1.1.1", "198.51.100.7", "10.0.0.2"}, want: "198.51.100.7"},
		"trusted all the way":            {peer: "10.0.0.1:1", lines: []string{"10.0.0.3, 10.0.0.2"}, want: "10.0.0.3"},
		"no header":                      {peer: "10.0.0.1:1", want: "10.0.0.1"},
		"an empty header":                {peer: "10.0.0.1:1", lines: []string{""}, want: "10.0.0.1"},
		"empty elements":                 {peer: "10.0.0.1:1", lines: []string{" , 198.51.100.7,, "}, want: "198.51.100.7"},
		"nonsense ends the walk":         {peer: "10.0.0.1:1", lines: []string{"198.51.100.7, nonsense, 10.0.0.2"}, want: "10.0.0.2"},
		"nonsense at once":               {peer: "10.0.0.1:1", lines: []string{"198.51.100.7, nonsense"}, want: "10.0.0.1"},
		"with a port":                    {peer: "10.0.0.1:1", lines: []string{"198.51.100.7:5678"}, want: "198.51.100.7"},
		"IPv6":                           {peer: "[2001:db8:1::1]:1", lines: []string{"2001:db8:2::7"}, want: "2001:db8:2::7"},
		"IPv6 with brackets":             {peer: "[2001:db8:1::1]:1", lines: []string{"[2001:db8:2::7]"}, want: "2001:db8:2::7"},
		"IPv6 with a port":               {peer: "[2001:db8:1::1]:1", lines: []string{"[2001:db8:2::7]:99"}, want: "2001:db8:2::7"},
		"a bracket that closes":          {peer: "10.0.0.1:1", lines: []string{"x2001:db8:2::7]"}, want: "10.0.0.1"},
		"IPv4 in brackets":               {peer: "10.0.0.1:1", lines: []string{"[198.51.100.7]"}, want: "10.0.0.1"},
		"mapped peer":                    {peer: "[::ffff:10.0.0.1]:1", lines: []string{"::ffff:198.51.100.7"}, want: "198.51.100.7"},
		"mapped network":                 {peer: "172.16.0.9:1", lines: []string{"198.51.100.7"}, want: "198.51.100.7"},
		"a zone does not hide a proxy":   {peer: "[2001:db8:1::1%eth0]:1", lines: []string{"198.51.100.7"}, want: "198.51.100.7"},
		"no address of the peer":         {peer: "", lines: []string{"198.51.100.7"}, want: "198.51.100.7"},
		"nonsense for the peer":          {peer: "here:1", lines: []string{"198.51.100.7"}, want: "invalid IP"},
		"Unix socket":                    {peer: "@", lines: []string{"198.51.100.7"}, want: "198.51.100.7"},
		"a Unix socket of nginx":         {peer: "10.0.0.1:1", lines: []string{"1.1.1.1, 198.51.100.7, unix:"}, want: "198.51.100.7"},
		"a Unix socket that is invented": {peer: "10.0.0.1:1", lines: []string{"1.1.1.1, unix:, 198.51.100.7"}, want: "198.51.100.7"},
		"a Unix socket and nothing else": {peer: "10.0.0.1:1", lines: []string{"unix:"}, want: "10.0.0.1"},
		"a Unix socket with a path":      {peer: "10.0.0.1:1", lines: []string{"198.51.100.7, unix:/run/x"}, want: "10.0.0.1"},
		"Forwarded, a Unix socket":       {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=198.51.100.7, for="unix:"`}, want: "198.51.100.7"},
		"single header":                  {header: "x-real-ip", peer: "10.0.0.1:1", lines: []string{"198.51.100.7"}, want: "198.51.100.7"},
		"Forwarded":                      {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=1.1.1.1, For="198.51.100.7:80";proto=https;by=10.0.0.9`}, want: "198.51.100.7"},
		"Forwarded IPv6":                 {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for="[2001:db8:cafe::17]:4711"`}, want: "2001:db8:cafe::17"},
		"Forwarded through two":          {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=198.51.100.7`, `for=10.0.0.2`}, want: "198.51.100.7"},
		"Forwarded, quotes that open":    {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for="198.51.100.77`}, want: "10.0.0.1"},
		"Forwarded, quotes that close":   {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=1198.51.100.7"`}, want: "10.0.0.1"},
		"Forwarded, one quote":           {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for="`}, want: "10.0.0.1"},
		"Forwarded, nothing in quotes":   {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=""`}, want: "10.0.0.1"},
		"Forwarded, space around":        {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`proto=https; for=198.51.100.7 ;by=x`}, want: "198.51.100.7"},
		"Forwarded, an empty element":    {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=198.51.100.7,`}, want: "198.51.100.7"},
		"Forwarded hides":                {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=1.1.1.1, for=_hidden`}, want: "10.0.0.1"},
		"Forwarded unknown":              {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=1.1.1.1, for=unknown`}, want: "10.0.0.1"},
		"Forwarded without for":          {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=1.1.1.1, proto=https`}, want: "10.0.0.1"},
		"Forwarded with two":             {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=1.1.1.1;for=2.2.2.2`}, want: "10.0.0.1"},
		"Forwarded with a quoted comma":  {header: "Forwarded", peer: "10.0.0.1:1", lines: []string{`for=1.1.1.1;x="a,b"`}, want: "1.1.1.1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := test.header
			if header == "" {
				header = "X-Forwarded-For"
			}
			r := get("/")
			r.RemoteAddr = test.peer
			r.Header[http.CanonicalHeaderKey(header)] = test.lines
			r.Header.Set("True-Client-Ip", "6.6.6.6") // another header is never read
			var got netip.Addr
			admit.ClientIP(header, proxyNetworks...)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = admit.ClientIPFrom(r)
			})).ServeHTTP(httptest.NewRecorder(), r)
			assert.Equal(t, test.want, got.String())
		})
	}
}

// A mapped network is that of IPv4, up to all of it, and any other is what it is.
func TestClientIPTrustsNetworks(t *testing.T) {
	t.Parallel()
	for network, test := range map[string]struct{ peer, want string }{
		"::ffff:0.0.0.0/96":    {"203.0.113.9:1", "198.51.100.7"},
		"::ffff:0.0.0.0/95":    {"203.0.113.9:1", "203.0.113.9"},
		"2001:db8::1/128":      {"[2001:db8::1]:1", "198.51.100.7"},
		"2001:db8::2/128":      {"[2001:db8::1]:1", "2001:db8::1"}, // the last 32 bits are no address of their own
		"2001:db8::1:0:0:0/80": {"[2001:db8::1:0:1:2]:1", "198.51.100.7"},
	} {
		r := get("/", "X-Forwarded-For", "198.51.100.7")
		r.RemoteAddr = test.peer
		var got netip.Addr
		admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix(network))(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = admit.ClientIPFrom(r)
		})).ServeHTTP(httptest.NewRecorder(), r)
		assert.Equal(t, test.want, got.String(), network)
	}
}

func TestClientIPFromWithoutClientIP(t *testing.T) {
	t.Parallel()
	for peer, want := range map[string]string{
		"203.0.113.9:1": "203.0.113.9", "[::ffff:203.0.113.9]:1": "203.0.113.9", "[2001:db8::1]:1": "2001:db8::1",
		"@": "invalid IP", "": "invalid IP",
	} {
		r := get("/")
		r.RemoteAddr = peer
		assert.Equal(t, want, admit.ClientIPFrom(r).String(), "%q", peer)
	}
}

func TestClientIPFromAllocations(t *testing.T) {
	r := get("/")
	allocs(t, 0, func() { admit.ClientIPFrom(r) })
}

func TestClientIPDoesNotBuild(t *testing.T) {
	t.Parallel()
	good := netip.MustParsePrefix("10.0.0.0/8")
	assert.Panics(t, func() { admit.ClientIP("X-Forwarded-For") }, "nobody is trusted")
	assert.Panics(t, func() { admit.ClientIP("", good) })
	assert.Panics(t, func() { admit.ClientIP("X Forwarded", good) })
	assert.Panics(t, func() { admit.ClientIP("X-Forwarded-For", good, netip.Prefix{}) })
}

// A reverse proxy on the same host often speaks over a Unix socket, which it may have bound
// to a name.
func TestClientIPOverAUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	got := make(chan netip.Addr, 1)
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: admit.ClientIP("X-Forwarded-For", proxyNetworks...)(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- admit.ClientIPFrom(r) }))}}
	s.Start()
	defer s.Close()
	names := []string{"", filepath.Join(t.TempDir(), "c")}
	if runtime.GOOS == "linux" {
		names = append(names, "@admit-test-"+strconv.Itoa(os.Getpid()))
	}
	for _, name := range names {
		dialer := net.Dialer{LocalAddr: &net.UnixAddr{Name: name, Net: "unix"}}
		c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}}}
		defer c.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://admit.test/", nil)
		require.NoError(t, err)
		r.Header.Set("X-Forwarded-For", "198.51.100.7")
		res, err := c.Do(r)
		require.NoError(t, err)
		_ = res.Body.Close()
		assert.Equal(t, "198.51.100.7", (<-got).String(), name)
	}
}

// A wrapper that copies a header into RemoteAddr makes no Unix socket of a client.
func TestClientIPOfARemoteAddrThatIsMadeUp(t *testing.T) {
	t.Parallel()
	for _, made := range []string{"@", "", "/run/c.sock", "@proxy"} {
		var got netip.Addr
		h := admit.ClientIP("X-Forwarded-For", proxyNetworks...)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = admit.ClientIPFrom(r) }))
		s := serve(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = made
			h.ServeHTTP(w, r)
		}))
		do(t, s, "GET", "/", "", "X-Forwarded-For", "198.51.100.7")
		assert.False(t, got.IsValid(), made)
	}
}

// What is written to the left of an untrusted address never matters.
func FuzzForwarding(f *testing.F) {
	for _, seed := range []string{"", "1.1.1.1", "1.1.1.1, 10.0.0.2", `for="[::1]:80";by=x`, `for="a,b"`, "\",", ",,,", "10.0.0.2:80", "[::1"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, forged string, forwarded bool) {
		header, honest := "X-Forwarded-For", "198.51.100.7"
		if forwarded {
			header, honest = "Forwarded", "for=198.51.100.7"
		}
		client := func(lines ...string) (a netip.Addr) {
			r := get("/")
			r.RemoteAddr = "10.0.0.1:1"
			r.Header[header] = lines
			admit.ClientIP(header, proxyNetworks...)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				a = admit.ClientIPFrom(r)
			})).ServeHTTP(httptest.NewRecorder(), r)
			return a
		}
		require.Equal(t, "198.51.100.7", client(forged, honest).String())
		require.Equal(t, "198.51.100.7", client(forged+", "+honest).String())
		require.Equal(t, client(strings.ReplaceAll(forged, ",", " , ")), client(forged), "white space around commas")
		require.True(t, client(forged).IsValid())
	})
}

// The Host of a request is the client's, and proxies pass it on in Forwarded: it neither
// moves a client into the Networks of a key, nor makes another caller of it.
func TestNetworksBehindAForwardedHost(t *testing.T) {
	t.Parallel()
	key := &admit.Key{ID: "k", Networks: prefixes("198.51.100.0/24")}
	h := admit.Policy{
		ClientIP: admit.ClientIP("Forwarded", netip.MustParsePrefix("10.0.0.0/8")),
		Auth:     newAuth(t, admit.AuthConfig{Store: admit.KeyMap{admit.DigestOf("good"): key}}),
	}.Wrap(ok)
	for _, value := range []string{
		`for=203.0.113.7;host="a,for=198.51.100.7;x";proto=https`,
		`for=203.0.113.7;host="a, for=198.51.100.7;y=\""`,
	} {
		r := get("/", "X-API-Key", "good", "Forwarded", value)
		r.RemoteAddr = "10.0.0.1:1"
		assert.Equal(t, 403, status(h, r), value)
	}
}

func TestForwardedIsReadAsItsGrammarSays(t *testing.T) {
	t.Parallel()
	trusted := admit.ClientIP("Forwarded", netip.MustParsePrefix("10.0.0.0/8"))
	for value, want := range map[string]string{
		`for=203.0.113.7;host="a,for=6.6.6.6;x";proto=https`: "203.0.113.7",
		`for="203.0.113.7:_x"`:                               "203.0.113.7",
		`for="203.0.113.7:8080"`:                             "203.0.113.7",
		`for=203.0.113.7,`:                                   "203.0.113.7",
		`for=203.0.113.7, , for=10.0.0.2`:                    "203.0.113.7",
		`for="\[2001:db8::1\]"`:                              "2001:db8::1",
		`for="[2001:db8::1]:_p"`:                             "2001:db8::1",
		`host="a;for=6.6.6.6;x"`:                             "10.0.0.1",
		`for=203.0.113.7;host="a`:                            "10.0.0.1",
		`for=203.0.113.7;host="\",for=6.6.6.6;x"`:            "203.0.113.7",
		`for=6.6.6.6;host="x, for=203.0.113.7`:               "203.0.113.7",
		`for=6.6.6.6;for=203.0.113.7`:                        "10.0.0.1",
	} {
		var got string
		r := get("/", "Forwarded", value)
		r.RemoteAddr = "10.0.0.1:1"
		trusted(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = admit.ClientIPFrom(r).String() })).ServeHTTP(newDiscard(), r)
		assert.Equal(t, want, got, value)
	}
}
