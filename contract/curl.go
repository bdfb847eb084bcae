package contract

import (
	"net/http"
	"slices"
	"strings"
)

// curlChange is how a curl line differs from that of a request as it should be.
type curlChange struct {
	noKey       bool
	key         string
	method      string
	accept      string
	contentType string
	path        string
}

// curl returns a line for a shell that sends a request to a route. The key is the variable
// KEY; wildcards of the path are in capitals.
func (m model) curl(r routeModel, change curlChange) string {
	method := change.method
	if method == "" && len(r.methods) > 0 {
		method = r.methods[0]
	}
	hasBody := method != "" && !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions}, method)
	words := []string{"curl", "-i"}
	if method != "" && method != http.MethodGet && (method != http.MethodPost || !hasBody) {
		words = append(words, "-X", shell(method))
	}
	server := m.info.Servers[0]
	if r.host != "" {
		scheme, _, _ := strings.Cut(server, "://")
		server = scheme + "://" + r.host
	}
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
			scheme := strings.TrimSuffix(s.Description[strings.LastIndex(s.Description, ": ")+1:], " KEY")
			words = append(words, "-H", `"Authorization:`+inDouble(scheme)+" "+key+`"`)
		case s.In == "header":
			words = append(words, "-H", `"`+inDouble(s.Name)+": "+key+`"`)
		case s.In == "query":
			query = `"?` + inDouble(s.Name) + "=" + key + `"`
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
			contentType = r.chain.Types[0]
		}
		if contentType != "" {
			words = append(words, "-H", shell("Content-Type: "+contentType))
		}
		words = append(words, "-d", "@body")
	}
	return strings.Join(append(words, shell(strings.TrimSuffix(server, "/")+path)+query), " ")
}

// provoke returns a line that gets an answer with this code, where one is easy to make, or "".
func (m model) provoke(c codeModel) string {
	change, ok := map[string]curlChange{
		"key_missing":            {noKey: true},
		"key_invalid":            {key: "unknown"},
		"method_not_allowed":     {method: http.MethodTrace},
		"not_implemented":        {method: "BREW"},
		"not_acceptable":         {accept: "application/x-none"},
		"unsupported_media_type": {contentType: "application/x-none"},
	}[c.code]
	if c.code == "not_found" && slices.Contains(c.routes, "") {
		return m.curl(routeModel{}, curlChange{path: "/no-such-resource"})
	}
	if !ok {
		return ""
	}
	for _, r := range m.routes {
		if !slices.Contains(c.routes, r.pattern) {
			continue
		}
		if change.contentType != "" && len(r.chain.Types) == 0 {
			continue // another reason of the code
		}
		return m.curl(r, change)
	}
	return ""
}

// examplePath is a path that a pattern of net/http matches.
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
		default:
			b.WriteString(segment)
		}
	}
	return b.String()
}

// shell quotes a word for a POSIX shell, if it has to be.
func shell(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:@%+=,", r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// inDouble quotes what stands between double quotes.
func inDouble(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s)
}
