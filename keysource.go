package admit

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/mediatype"
)

// KeySource is a place in a request that may have the key.
type KeySource struct {
	in   string // authorization, header, query, cookie
	name string // authorization: the scheme
}

// FromBearer is FromAuthorization("Bearer") (RFC 6750 §2.1).
func FromBearer() KeySource { return FromAuthorization("Bearer") }

// FromAuthorization takes the key from the Authorization header, after a scheme such as Token
// or ApiKey, in any case (RFC 9110 §11.4). The scheme without a key is an invalid credential.
// Another scheme is no credential, also "Bearertok_abc".
func FromAuthorization(scheme string) KeySource { return KeySource{"authorization", scheme} }

// FromHeader takes the key from a header that has only the key, such as X-API-Key. Header names
// have no case: net/http writes this one as X-Api-Key.
func FromHeader(name string) KeySource { return KeySource{"header", http.CanonicalHeaderKey(name)} }

// FromQuery takes the key from a query parameter. Use it only if clients can do nothing else:
// proxies and browsers keep URLs, with their keys, in logs and histories, and send them on in
// Referer. A ServeMux redirects /dir to /dir/. Inside an Auth the Location does not have the
// key, so the client is rejected when it follows; outside an Auth it has the key. Register both
// paths with the mux. Other redirects inside the Auth are marked no-store.
func FromQuery(name string) KeySource { return KeySource{"query", name} }

// FromCookie takes the key from a cookie. Browsers also send cookies with requests from other
// sites, so the service needs protection against those (http.CrossOriginProtection). A cookie
// that net/http cannot parse, such as key=a\b, is no credential.
func FromCookie(name string) KeySource { return KeySource{"cookie", name} }

// String describes the source, such as "the header X-Api-Key".
func (s KeySource) String() string {
	switch s.in {
	case "authorization":
		return "Authorization: " + s.name
	case "header":
		return "the header " + s.name
	case "query":
		return "the query parameter " + s.name
	case "cookie":
		return "the cookie " + s.name
	default:
		return "no source"
	}
}

func describeSources(sources []KeySource) string {
	var all []string
	for _, s := range sources {
		all = append(all, s.String())
	}
	return strings.Join(all, " or ")
}

// fault returns the problem of the source, or "".
func (s KeySource) fault() string {
	switch {
	case s == KeySource{}:
		return "is the zero KeySource; use FromBearer, FromAuthorization, FromHeader, FromQuery or FromCookie"
	case s.in == "query":
		if s.name == "" {
			return "has no name of a query parameter"
		}
	case !mediatype.IsToken(s.name):
		what := map[string]string{"authorization": "an authentication scheme", "header": "a header", "cookie": "a cookie"}
		return fmt.Sprintf("has %q, which is not the name of %s", s.name, what[s.in])
	case s.in == "authorization" && strings.EqualFold(s.name, "Basic"):
		return "has the scheme Basic, which is for a name and a password and not for a key; use Bearer, or a scheme of your own"
	case s.in == "header" && s.name == "Authorization":
		return "is the header Authorization, which has a scheme before the key; use FromBearer or FromAuthorization"
	case s.in == "header" && s.name == "Cookie":
		return "is the header Cookie, which has names before values; use FromCookie"
	case s.in == "header" && slices.Contains(ofTheConnection, s.name):
		return fmt.Sprintf("is the header %s, which belongs to the connection and is not the client's to send to you; use one such as X-API-Key", s.name)
	}
	return ""
}

// ofTheConnection are headers that net/http handles itself or that proxies remove (RFC 9110
// §7.6.1).
var ofTheConnection = []string{
	"Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// same reports whether two sources find the same keys.
func (s KeySource) same(other KeySource) bool {
	return s == other || s.in == "authorization" && other.in == s.in && strings.EqualFold(s.name, other.name)
}

// isBearer reports whether the source accepts Bearer tokens.
func (s KeySource) isBearer() bool {
	return s.in == "authorization" && strings.EqualFold(s.name, "Bearer")
}

// challenge returns the challenge of the source. An Authorization scheme names itself: Bearer
// is registered, and others belong to the service. A key without a scheme is described as in
// API descriptions.
func (s KeySource) challenge(realm, problem string) string {
	var params []string
	param := func(name, value string) { params = append(params, name+"="+mediatype.Quote(value)) }
	scheme := s.name
	if s.in != "authorization" {
		scheme = "ApiKey"
		param("in", s.in)
		param("name", s.name)
	}
	switch {
	case realm != "":
		param("realm", realm)
	case s.in == "authorization":
		param("realm", "api") // parsers reject a scheme without a parameter (RFC 6750 §3)
	}
	if problem != "" {
		param("error", problem)
	}
	return strings.TrimSpace(scheme + " " + strings.Join(params, ", "))
}

// found is what a source has in a request.
type found int

const (
	nothing found = iota
	theKey
	emptyKey  // a scheme with nothing after it
	manyTimes // the source is there more than once
)

// find returns the value of the source in r, without white space around it.
func (s *KeySource) find(r *http.Request) (value string, _ found) {
	switch s.in {
	case "authorization":
		lines := r.Header["Authorization"]
		if len(lines) == 0 {
			return "", nothing
		}
		value, ours := afterScheme(lines[0], s.name)
		switch {
		case len(lines) > 1:
			return "", manyTimes
		case !ours:
			return "", nothing
		case value == "":
			return "", emptyKey
		default:
			return value, theKey
		}
	case "header":
		lines := r.Header[s.name]
		switch len(lines) {
		case 0:
			return "", nothing
		case 1:
			return foundIn(strings.Trim(lines[0], " \t"))
		}
		return "", manyTimes
	case "query":
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			if v, ok := s.inQuery(pair); ok {
				if value != "" {
					return "", manyTimes
				}
				value = v
			}
		}
	case "cookie":
		for _, c := range r.CookiesNamed(s.name) {
			if value != "" {
				return "", manyTimes
			}
			value = c.Value
		}
	}
	return foundIn(value)
}

func foundIn(value string) (string, found) {
	if value == "" {
		return "", nothing
	}
	return value, theKey
}

// afterScheme returns what follows the scheme in an Authorization header, without white space
// around it, and whether the header has that scheme.
func afterScheme(authorization, scheme string) (value string, ours bool) {
	authorization = strings.TrimLeft(authorization, " \t")
	if len(authorization) < len(scheme) || !strings.EqualFold(authorization[:len(scheme)], scheme) {
		return "", false
	}
	rest := authorization[len(scheme):]
	value = strings.TrimLeft(rest, " \t")
	return strings.TrimRight(value, " \t"), rest == "" || len(value) < len(rest)
}

// inQuery reports whether a pair of the query is this source, and returns its value.
func (s *KeySource) inQuery(pair string) (value string, ok bool) {
	name, value, _ := strings.Cut(pair, "=")
	if name, err := url.QueryUnescape(name); err != nil || name != s.name {
		return "", false
	}
	if plain, err := url.QueryUnescape(value); err == nil {
		value = plain
	}
	return value, true
}

// remove removes the credential from r, whose state is st. R shares its header and URL with the
// original request, so it gets new ones.
func (s *KeySource) remove(st *state, r *http.Request) {
	switch s.in {
	case "authorization":
		delete(st.header(r), "Authorization")
	case "header":
		delete(st.header(r), s.name)
	case "query":
		var kept []string
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			if _, ok := s.inQuery(pair); !ok {
				kept = append(kept, pair)
			}
		}
		u := *r.URL
		u.RawQuery = strings.Join(kept, "&")
		r.URL = &u
		if path, _, ok := strings.Cut(r.RequestURI, "?"); ok {
			r.RequestURI = strings.TrimSuffix(path+"?"+u.RawQuery, "?")
		}
		if r.Form != nil { // a middleware outside has parsed it
			r.Form = maps.Clone(r.Form)
			delete(r.Form, s.name)
		}
	case "cookie":
		h := st.header(r)
		var lines []string
		for _, line := range h["Cookie"] {
			var kept []string
			for pair := range strings.SplitSeq(line, ";") {
				pair = strings.TrimSpace(pair)
				if name, _, _ := strings.Cut(pair, "="); strings.TrimSpace(name) != s.name {
					kept = append(kept, pair)
				}
			}
			if len(kept) > 0 {
				lines = append(lines, strings.Join(kept, "; "))
			}
		}
		if delete(h, "Cookie"); len(lines) > 0 {
			h["Cookie"] = lines
		}
	}
}
