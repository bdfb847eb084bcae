package contract

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/jsontree"
)

// Merge adds the contract to an OpenAPI 3.1 or 3.2 document in JSON that the service already
// has. To each operation it adds the responses whose status the operation does not have, with
// their headers and schemas. It adds security where neither the operation nor the document has
// any, and the operations of routes that the document does not have. It neither changes nor
// moves what is there, and does not follow a $ref. Merging again changes nothing.
//
// Paths are the same if they differ only in the names of parameters. A route under the path
// of the document's servers, such as /v1/prices under https://api.example.com/v1, is
// /prices there. A component whose name is taken gets a number. QUERY is not added to a
// document of 3.1.
//
// Merge into the document that people write, not into the last result, which would keep
// outdated responses. The error says what is wrong with the document, and where.
func (a *API) Merge(document []byte) ([]byte, error) {
	doc, version, err := readDocument(document)
	if err != nil {
		return nil, fmt.Errorf("contract: Merge: %w", err)
	}
	ours, err := a.openAPI(version)
	if err != nil {
		return nil, fmt.Errorf("contract: Merge: %w", err)
	}
	m := merger{doc: doc, ours: ours, placed: make(map[string]string), ids: make(map[string]bool)}
	if m.merge(); m.err != nil {
		return nil, fmt.Errorf("contract: Merge: %w", m.err)
	}
	return doc.Write(), nil
}

var (
	yaml  = regexp.MustCompile(`(?m)^(---|%YAML|["']?(openapi|swagger)["']?[ \t]*:)`)
	known = regexp.MustCompile(`^3\.[12](\.[0-9]+(-.*)?)?$`)
)

// readDocument returns a document, and the version of what is added to it.
func readDocument(text []byte) (*jsontree.Value, OpenAPIVersion, error) {
	doc, err := jsontree.Parse(text)
	switch {
	case err != nil && !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n\ufeff"), []byte("{")) && yaml.Match(text):
		return nil, "", errors.New("the document is YAML; convert it to JSON first, for example with yq -o=json")
	case err != nil:
		return nil, "", fmt.Errorf("the document cannot be read as JSON: %w", err)
	case !doc.IsObject():
		return nil, "", errors.New("the document is not an object; give an OpenAPI document")
	case doc.Get("swagger") != nil:
		return nil, "", errors.New("the document is Swagger (OpenAPI 2.0); convert it to OpenAPI 3.1 first")
	case doc.Get("openapi") == nil:
		return nil, "", errors.New("the document has no member openapi; give an OpenAPI document")
	}
	version, ok := doc.Get("openapi").Text()
	switch {
	case !ok:
		return nil, "", fmt.Errorf("#/openapi is not a string, such as %q", string(OpenAPI31))
	case strings.HasPrefix(version, "3.0"):
		return nil, "", fmt.Errorf("the document is OpenAPI %.20q, whose schemas differ from those of 3.1; convert it to 3.1 first", version)
	case !known.MatchString(version):
		return nil, "", fmt.Errorf("the document is OpenAPI %.20q; Merge supports 3.1 and 3.2", version)
	case strings.HasPrefix(version, "3.1"):
		return doc, OpenAPI31, nil
	}
	return doc, OpenAPI32, nil
}

// merger adds our document, that of the contract, to another.
type merger struct {
	doc, ours *jsontree.Value
	theirs    []*theirPath
	bases     []string          // paths of the servers of doc
	rooted    bool              // some routes are under them, so doc's paths are relative to the servers
	placed    map[string]string // our components, by section and name: their names in doc
	ids       map[string]bool   // operationIds in doc
	err       error             // the first
}

// theirPath is a path of the other document.
type theirPath struct {
	template, shape string
	item            *jsontree.Value
	bases           []string // of its own servers; nil: those of the document
}

func (m *merger) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf(format, args...)
	}
}

// object returns a member that is an object. It adds one if there is none.
func (m *merger) object(of *jsontree.Value, pointer, name string) *jsontree.Value {
	if of.Get(name) == nil {
		of.Set(name, jsontree.Object())
	}
	v := of.Get(name)
	if !v.IsObject() {
		m.fail("%s is not an object", pointer+"/"+escape(name))
		return jsontree.Object()
	}
	return v
}

// escape writes a name as a token of a JSON Pointer (RFC 6901 §3).
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

func (m *merger) merge() {
	m.collectIDs(m.doc)
	m.bases = basesOf(m.doc.Get("servers"))
	paths := m.object(m.doc, "#", "paths")
	for template, item := range paths.All() {
		m.know(template, item)
	}
	for template := range m.ours.Get("paths").All() {
		m.rooted = m.rooted || under(template, m.bases)
	}
	for template, item := range m.ours.Get("paths").All() {
		same := m.find(template)
		if len(same) == 0 {
			m.addPath(paths, template, item)
		}
		for _, p := range same {
			m.mergePath(p, template, item)
		}
	}
}

// know records a path of the other document.
func (m *merger) know(template string, item *jsontree.Value) {
	p := &theirPath{template: template, shape: shapeOf(template), item: item}
	if servers := item.Get("servers"); servers.Len() > 0 {
		p.bases = basesOf(servers)
	}
	m.theirs = append(m.theirs, p)
}

// collectIDs records all operationIds, and everything that looks like one.
func (m *merger) collectIDs(v *jsontree.Value) {
	for name, member := range v.All() {
		if id, ok := member.Text(); ok && name == "operationId" {
			m.ids[id] = true
		}
		m.collectIDs(member)
	}
	for item := range v.Items() {
		m.collectIDs(item)
	}
}

// find returns the paths of the other document that are the same as one of ours. Of paths that
// differ only in the names of parameters, which OpenAPI forbids, it returns the first.
func (m *merger) find(template string) (same []*theirPath) {
	shapes := relative(template, m.bases)
	for _, p := range m.theirs {
		here := shapes
		if p.bases != nil {
			here = relative(template, p.bases)
		}
		if slices.Contains(here, p.shape) && !slices.ContainsFunc(same, func(o *theirPath) bool { return o.shape == p.shape }) {
			same = append(same, p)
		}
	}
	if same != nil {
		return same
	}
	// A path in the place of ours may be for other servers.
	for _, p := range m.theirs {
		if p.shape == shapeOf(m.place(template)) {
			return []*theirPath{p}
		}
	}
	return nil
}

// place returns the template that one of our paths has in the other document.
func (m *merger) place(template string) string {
	for _, base := range m.bases {
		if under(template, []string{base}) {
			return "/" + strings.TrimPrefix(template[len(base):], "/")
		}
	}
	return template
}

// addPath adds a path that the other document does not have.
func (m *merger) addPath(paths *jsontree.Value, template string, item *jsontree.Value) {
	added := jsontree.Object()
	if m.rooted && !under(template, m.bases) {
		added.Set("servers", rootsOf(m.doc.Get("servers")))
	}
	for name, member := range item.All() {
		switch {
		case isMethod(name):
			added.Set(name, m.adoptOperation(member))
		case name == "additionalOperations":
			all := jsontree.Object()
			for method, op := range member.All() {
				all.Set(method, m.adoptOperation(op))
			}
			added.Set(name, all)
		default:
			added.Set(name, m.adopt(member))
		}
	}
	at := m.place(template)
	paths.Set(at, added)
	m.know(at, added)
}

// mergePath adds one of our paths to one that the other document has.
func (m *merger) mergePath(p *theirPath, template string, item *jsontree.Value) {
	pointer := "#/paths/" + escape(p.template)
	if !p.item.IsObject() {
		m.fail("%s is not an object", pointer)
		return
	}
	if p.item.Get("$ref") != nil {
		return
	}
	merge := func(in *jsontree.Value, pointer, name string, op *jsontree.Value) {
		if in.Get(name) != nil {
			m.mergeOperation(m.object(in, pointer, name), pointer+"/"+escape(name), op)
			return
		}
		added := m.adoptOperation(op)
		if params := m.params(p, item); params.Len() > 0 {
			added.Set("parameters", params)
		}
		if servers := item.Get("servers"); servers != nil && added.Get("servers") == nil {
			added.Set("servers", servers)
		}
		in.Set(name, added)
	}
	for name, op := range item.All() {
		switch {
		case isMethod(name):
			merge(p.item, pointer, name, op)
		case name == "additionalOperations":
			additional := m.object(p.item, pointer, name)
			for method, op := range op.All() {
				merge(additional, pointer+"/"+name, method, op)
			}
		}
	}
}

func isMethod(name string) bool { return slices.Contains(fixedMethods, strings.ToUpper(name)) }

// params returns the parameters of one of our paths that the same path of the other document
// does not describe, with the names that they have there.
func (m *merger) params(p *theirPath, item *jsontree.Value) *jsontree.Value {
	described := make(map[string]bool)
	for param := range p.item.Get("parameters").Items() {
		if ref, ok := param.Get("$ref").Text(); ok {
			name, _ := strings.CutPrefix(ref, "#/components/parameters/")
			param = m.doc.Get("components").Get("parameters").Get(name)
		}
		if name, ok := param.Get("name").Text(); ok {
			described[name] = true
		}
	}
	names := namesOf(p.template)
	all, i := jsontree.Array(), 0
	for param := range item.Get("parameters").Items() {
		// If ours has more parameters, from a base path, the last ones are the same.
		if at := i + len(names) - item.Get("parameters").Len(); at >= 0 && !described[names[at]] {
			renamed := m.adopt(param)
			renamed.Set("name", jsontree.Of(names[at]))
			all.Append(renamed)
		}
		i++
	}
	return all
}

// namesOf returns the names of the parameters of a path template.
func namesOf(template string) (names []string) {
	for {
		_, rest, found := strings.Cut(template, "{")
		name, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			return names
		}
		names = append(names, name)
		template = after
	}
}

// mergeOperation adds the responses that an operation does not have.
func (m *merger) mergeOperation(op *jsontree.Value, pointer string, our *jsontree.Value) {
	responses := m.object(op, pointer, "responses")
	succeeds := false
	for status := range responses.All() {
		succeeds = succeeds || status == "default" || status != "" && strings.Contains("123", status[:1])
	}
	for status, response := range our.Get("responses").All() {
		if responses.Get(status) == nil && !(succeeds && status == "2XX") {
			responses.Set(status, m.adopt(response))
		}
	}
	if op.Get("security") == nil && m.doc.Get("security") == nil {
		op.Set("security", m.adoptSecurity(our.Get("security")))
	}
}

// adoptOperation returns a copy of one of our operations for the other document.
func (m *merger) adoptOperation(our *jsontree.Value) *jsontree.Value {
	op := m.adopt(our)
	op.Set("security", m.adoptSecurity(our.Get("security")))
	id, _ := our.Get("operationId").Text()
	id = firstFree(id, func(id string) bool { return !m.ids[id] })
	m.ids[id] = true
	op.Set("operationId", jsontree.Of(id))
	return op
}

// adopt returns a copy that refers to the components of the other document.
func (m *merger) adopt(our *jsontree.Value) *jsontree.Value {
	return our.Map(func(name, text string) string {
		section, component, ok := strings.Cut(strings.TrimPrefix(text, "#/components/"), "/")
		if name != "$ref" || !ok {
			return text
		}
		return "#/components/" + section + "/" + m.component(section, component)
	})
}

func (m *merger) adoptSecurity(our *jsontree.Value) *jsontree.Value {
	all := jsontree.Array()
	for requirement := range our.Items() {
		adopted := jsontree.Object()
		for name, scopes := range requirement.All() {
			adopted.Set(m.component("securitySchemes", name), scopes)
		}
		all.Append(adopted)
	}
	return all
}

// component puts one of our components into the other document, unless it is there already,
// and returns its name.
func (m *merger) component(section, name string) string {
	key := section + "/" + name
	if m.placed[key] != "" {
		return m.placed[key]
	}
	our := m.ours.Get("components").Get(section).Get(name)
	if our == nil {
		return name // part of an example
	}
	our = m.adopt(our)
	all := m.object(m.object(m.doc, "#", "components"), "#/components", section)
	m.placed[key] = firstFree(name, func(name string) bool {
		there := all.Get(name)
		return there == nil || jsontree.Equal(there, our)
	})
	if all.Get(m.placed[key]) == nil {
		all.Set(m.placed[key], our)
	}
	return m.placed[key]
}

// under reports whether a path is under one of the bases that are not empty.
func under(path string, bases []string) bool {
	return slices.ContainsFunc(bases, func(base string) bool {
		return base != "" && strings.HasPrefix(path, base) && (len(path) == len(base) || path[len(base)] == '/')
	})
}

// relative returns the shapes that a path may have relative to the bases.
func relative(template string, bases []string) []string {
	var shapes []string
	for _, base := range bases {
		if under(template, []string{base}) {
			shapes = union(shapes, []string{shapeOf("/" + strings.TrimPrefix(template[len(base):], "/"))})
		}
	}
	if shapes == nil || slices.Contains(bases, "") {
		shapes = union(shapes, []string{shapeOf(template)})
	}
	return shapes
}

// maxServer bounds the URL of a server, with the values of its variables, in bytes. Longer
// ones are ignored.
const maxServer = 2 << 10

// basesOf returns the paths of servers, each once, without a trailing slash.
func basesOf(servers *jsontree.Value) []string {
	var bases []string
	seen := make(map[string]bool)
	for _, u := range serverURLs(servers) {
		base := strings.TrimRight(u.EscapedPath(), "/")
		if base != "" && base[0] != '/' {
			base = ""
		}
		if !seen[base] {
			seen[base] = true
			bases = append(bases, base)
		}
	}
	if bases == nil {
		return []string{""} // the default is the server /
	}
	return bases
}

// rootsOf returns servers without their paths.
func rootsOf(servers *jsontree.Value) *jsontree.Value {
	var roots []string
	seen := make(map[string]bool)
	for _, u := range serverURLs(servers) {
		root := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}).String()
		if root != "/" {
			root = strings.TrimSuffix(root, "/")
		}
		if !seen[root] {
			seen[root] = true
			roots = append(roots, root)
		}
	}
	return serverObjects(roots)
}

// serverURLs returns the URLs of servers, with the default values of their variables.
func serverURLs(servers *jsontree.Value) (all []*url.URL) {
	for server := range servers.Items() {
		text, _ := server.Get("url").Text()
		var b strings.Builder
		for text != "" && len(text) <= maxServer && b.Len() <= maxServer {
			before, rest, found := strings.Cut(text, "{")
			b.WriteString(before)
			name, after, _ := strings.Cut(rest, "}")
			if value, ok := server.Get("variables").Get(name).Get("default").Text(); found && ok && len(value) <= maxServer {
				b.WriteString(value)
			}
			text = after
		}
		if u, err := url.Parse(b.String()); err == nil && b.Len() <= maxServer {
			all = append(all, u)
		}
	}
	return all
}
