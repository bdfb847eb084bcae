package contract

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// curlChange is how the curl line of a wrong request differs from that of a right one.
type curlChange struct {
	noKey       bool
	key         string
	method      string
	accept      string
	contentType string
	path        string
}

// curl returns a shell command that sends a request to a route. The key is the variable KEY;
// wildcards of the path and of media types are in capitals.
func (m model) curl(r routeModel, change curlChange) string {
	method := change.method
	if method == "" && len(r.methods) > 0 {
		method = r.methods[0]
	}
	hasBody := method != "" && !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions}, method)
	words := []string{"curl", "-i"}
	switch {
	case method == http.MethodHead:
		words = append(words, "-I") // with -X HEAD, curl would wait for a body
	case method != "" && method != http.MethodGet && (method != http.MethodPost || !hasBody):
		words = append(words, "-X", shell(method))
	}
	server := m.servers(r.host)[0]
	path := change.path
	if path == "" {
		path = examplePath(r.path)
	}
	query := ""
	if len(r.security) > 0 && !change.noKey {
		key := change.key
		if key == "" {
			key = "$KEY"
		}
		switch s := m.schemes[r.security[0]]; {
		case s.Type == "http" && strings.EqualFold(s.Scheme, "bearer"), s.Type == "oauth2", s.Type == "openIdConnect":
			words = append(words, "-H", `"Authorization: Bearer `+key+`"`)
		case s.Type == "http":
			words = append(words, "-H", `"Authorization: `+inDouble(s.Scheme)+" "+key+`"`)
		case s.In == "header" && strings.EqualFold(s.Name, "Authorization"):
			words = append(words, "-H", `"Authorization: `+inDouble(r.scheme(r.security[0]))+key+`"`)
		case s.In == "header":
			words = append(words, "-H", `"`+inDouble(s.Name)+": "+key+`"`)
		case s.In == "query":
			query = `"?` + url.QueryEscape(s.Name) + "=" + key + `"`
		case s.In == "cookie":
			words = append(words, "-b", `"`+inDouble(s.Name)+"="+key+`"`)
		case s.Type == "mutualTLS":
			words = append(words, "--cert", `"$CERT"`, "--key", `"$KEY"`)
		}
	}
	accept := change.accept
	if accept == "" && len(r.chain.Offers) > 0 {
		accept = r.chain.Offers[0]
	}
	if accept != "" {
		words = append(words, "-H", shell("Accept: "+accept))
	}
	if hasBody {
		contentType := change.contentType
		if contentType == "" && len(r.chain.Types) > 0 {
			contentType = exampleType(r.chain.Types[0])
		}
		words = append(words, bodyOf(contentType)...)
	}
	return strings.Join(append(words, shell(strings.TrimSuffix(server, "/")+path)+query), " ")
}

// bodyOf returns the words that send the file named body.
func bodyOf(contentType string) []string {
	if contentType == "" {
		return []string{"-d", "@body"}
	}
	if essence, _, _ := strings.Cut(contentType, ";"); strings.EqualFold(strings.TrimSpace(essence), "multipart/form-data") {
		return []string{"-F", "file=@body"} // curl adds the boundary
	}
	send := "--data-binary" // -d removes line breaks
	if isJSON(contentType) {
		send = "-d"
	}
	return []string{"-H", shell("Content-Type: " + contentType), send, "@body"}
}

// exampleType returns a media type that a pattern matches, with its wildcard in capitals.
func exampleType(pattern string) string {
	return strings.Replace(strings.Replace(pattern, "*/*", "application/*", 1), "/*", "/TYPE", 1)
}

// scheme returns what precedes the key in the header Authorization, with a space after it. It
// is "" for a scheme of an Identity, which reads the header itself.
func (r routeModel) scheme(id string) string {
	for _, s := range r.chain.Sources {
		if name, _ := schemeOf(s); name == id && s.In == "authorization" {
			return s.Name + " "
		}
	}
	return ""
}

// provocations are requests that admit answers with a code, by code. An error of the service
// may have the same code, so fields names those of the Policy that the answer comes from.
var provocations = map[string]struct {
	fields []string
	change curlChange
}{
	"key_missing":            {[]string{"Auth"}, curlChange{noKey: true}},
	"key_invalid":            {[]string{"Auth"}, curlChange{key: "unknown"}},
	"method_not_allowed":     {[]string{"Methods"}, curlChange{method: http.MethodTrace}},
	"not_implemented":        {[]string{"Methods"}, curlChange{method: "BREW"}},
	"not_acceptable":         {[]string{"Accept", "Negotiator"}, curlChange{accept: "application/x-none"}},
	"unsupported_media_type": {[]string{"ContentType", "ContentTypes"}, curlChange{contentType: "application/x-none"}},
}

// provoke returns a shell command that gets an answer with this code, or "" where none is
// easy to make.
func (m model) provoke(c codeModel) string {
	if c.code == "not_found" && slices.ContainsFunc(c.rows, func(a Answer) bool { return a.field == "mux" }) && !m.catchesAll() {
		return m.curl(routeModel{}, curlChange{path: "/no-such-resource"})
	}
	how, ok := provocations[c.code]
	if !ok {
		return ""
	}
	for _, r := range m.routes {
		if slices.ContainsFunc(r.answers, func(a Answer) bool {
			return a.Status == c.rows[0].Status && a.Code == c.code && slices.Contains(how.fields, a.field)
		}) {
			return m.curl(r, how.change)
		}
	}
	return ""
}

// catchesAll reports whether a route may match an arbitrary path.
func (m model) catchesAll() bool {
	return slices.ContainsFunc(m.routes, func(r routeModel) bool {
		first, _, _ := strings.Cut(strings.TrimPrefix(r.path, "/"), "/")
		return r.path == "/" || strings.HasPrefix(first, "{") && first != "{$}"
	})
}

// examplePath returns a path that a pattern of net/http matches.
func examplePath(pattern string) string {
	var b strings.Builder
	for i, segment := range strings.Split(pattern, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		name, wildcard := strings.CutPrefix(segment, "{")
		name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "...")
		switch {
		case segment == "{$}":
		case wildcard:
			b.WriteString(strings.ToUpper(name))
		default: // net/http compares literals unescaped
			if literal, err := url.PathUnescape(segment); err == nil {
				segment = literal
			}
			b.WriteString(url.PathEscape(segment))
		}
	}
	return b.String()
}

// shell quotes a word for a POSIX shell, if it needs quotes.
func shell(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:@%+=,", r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// inDouble escapes what stands between double quotes in a POSIX shell.
func inDouble(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s)
}
