package contract

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/jsontree"
	"github.com/admit-go/admit/internal/published"
)

// OpenAPIVersion is a version of the OpenAPI Specification: OpenAPI31 or OpenAPI32.
type OpenAPIVersion string

// The versions that OpenAPI writes.
const (
	OpenAPI31 OpenAPIVersion = "3.1.2"
	OpenAPI32 OpenAPIVersion = "3.2.0"
)

// OpenAPI returns the contract as an OpenAPI document in JSON: operations with their
// parameters, security, errors and headers. The success of an operation is a 2XX with the
// envelope of admit.Success, since a Policy knows no more about it. A service that has a
// document of its own calls Merge instead. The same contract always gives the same bytes.
//
// A pattern without a method becomes one operation for each method of its Policy. If the
// Policy takes any method, the operations are GET, POST, PUT, PATCH, DELETE and QUERY, and
// their descriptions say so. HEAD is left out where there is GET. OpenAPI 3.1 has neither QUERY
// nor methods that are not registered; the description of the document names the operations
// that are left out. Patterns that differ only in their hosts, or in what OpenAPI does not
// distinguish, such as {name} and {name...}, become one operation with the errors of all.
//
// OpenAPI returns an error for any other version.
func (a *API) OpenAPI(version OpenAPIVersion) ([]byte, error) {
	if version != OpenAPI31 && version != OpenAPI32 {
		return nil, fmt.Errorf("contract: OpenAPI: there is no document of the version %q; give OpenAPI31 or OpenAPI32", version)
	}
	doc, err := a.openAPI(version)
	if err != nil {
		return nil, fmt.Errorf("contract: OpenAPI: %w", err)
	}
	return doc.Write(), nil
}

func (a *API) openAPI(version OpenAPIVersion) (*jsontree.Value, error) {
	d := document{version: version, model: a.model(), outer: a.outer.chain, ids: make(map[string]bool)}
	d.parts.init()
	if err := d.addSchemes(); err != nil { // New has checked them
		return nil, err
	}
	paths := jsontree.Object()
	for _, p := range d.pathsOf() {
		if item := d.pathItem(p); item.Len() > 0 {
			paths.Set(p.template, item)
		}
	}
	return jsontree.Object(
		"openapi", string(version),
		"info", jsontree.Object("title", d.info.Title, "version", d.info.Version, "description", d.description()),
		"servers", serverObjects(d.servers("")),
		"paths", d.share(paths),
		"components", d.components(),
	), nil
}

// document is an OpenAPI document while it is written.
type document struct {
	model
	parts
	version OpenAPIVersion
	outer   published.Chain
	ids     map[string]bool // operationIds
	left    []string        // operations that are left out, since the version cannot have them
}

// path is all that is registered under one path template.
type path struct {
	template string
	params   []param
	methods  []string // sorted as in fixedMethods; others after them, by name
	routes   map[string][]routeModel
}

type param struct {
	name string
	rest bool // it takes the rest of the path
}

// pathsOf returns the paths of all routes, sorted by template.
func (d *document) pathsOf() []*path {
	byShape := make(map[string]*path)
	for _, r := range d.routes {
		template, params := templateOf(r.path)
		p := byShape[shapeOf(template)]
		if p == nil {
			p = &path{template: template, routes: make(map[string][]routeModel)}
			p.params = params
			byShape[shapeOf(template)] = p
		}
		for i := range params {
			p.params[i].rest = p.params[i].rest || params[i].rest
		}
		for _, method := range d.methodsOf(r) {
			p.routes[method] = append(p.routes[method], r)
		}
	}
	for _, p := range byShape {
		p.methods = slices.SortedFunc(maps.Keys(p.routes), func(a, b string) int {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
		})
	}
	return slices.SortedFunc(maps.Values(byShape), func(a, b *path) int { return cmp.Compare(a.template, b.template) })
}

// fixedMethods are the methods for which a Path Item Object has a member, in the order of the
// document. QUERY is one since 3.2.
var fixedMethods = []string{
	http.MethodGet, "QUERY", http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	http.MethodOptions, http.MethodHead, http.MethodTrace,
}

func rank(method string) int {
	if i := slices.Index(fixedMethods, method); i >= 0 {
		return i
	}
	return len(fixedMethods)
}

// anyMethods stand for any method: each has a meaning of its own for a resource.
var anyMethods = []string{http.MethodGet, "QUERY", http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// methodsOf returns the methods of a route for which there is an operation. A method for which
// the same path has another pattern is not among them.
func (d *document) methodsOf(r routeModel) []string {
	methods := r.methods
	if methods == nil {
		methods = anyMethods
	}
	return slices.DeleteFunc(slices.Clone(methods), func(method string) bool {
		if method == http.MethodHead && slices.Contains(methods, http.MethodGet) {
			return true
		}
		return r.method == "" && slices.ContainsFunc(d.routes, func(o routeModel) bool {
			return o.method == method && o.host == r.host && samePath(o.path, r.path)
		})
	})
}

// samePath reports whether two paths of patterns match the same requests.
func samePath(a, b string) bool {
	one, params := templateOf(a)
	other, others := templateOf(b)
	return shapeOf(one) == shapeOf(other) && slices.EqualFunc(params, others, func(p, o param) bool { return p.rest == o.rest })
}

// templateOf returns the path of a pattern as OpenAPI writes it, with its parameters. A path
// that ends in a slash matches all paths below it, so it has one parameter more.
func templateOf(pattern string) (template string, params []param) {
	segments := strings.Split(pattern, "/")
	for i, segment := range segments {
		name, wildcard := strings.CutPrefix(segment, "{")
		name = strings.TrimSuffix(name, "}")
		switch {
		case name == "$":
			segments[i] = ""
			continue
		case segment == "" && i == len(segments)-1 && i > 0:
			name, wildcard = "path...", true
			for slices.ContainsFunc(params, func(p param) bool { return p.name+"..." == name }) {
				name = "_" + name
			}
		}
		if !wildcard {
			if literal, err := url.PathUnescape(segment); err == nil {
				segments[i] = url.PathEscape(literal)
			}
			continue
		}
		name, rest := strings.CutSuffix(name, "...")
		params = append(params, param{name, rest})
		segments[i] = "{" + name + "}"
	}
	return strings.Join(segments, "/"), params
}

// shapeOf returns a path template without the names of its parameters, which do not distinguish
// paths.
func shapeOf(template string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(template, "{")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, after, closed := strings.Cut(rest, "}")
		if !closed {
			return b.String() + "{" + rest
		}
		b.WriteString("{}")
		template = after
	}
}

// pathItem returns a Path Item Object, or one without a member if the version has none of
// the methods.
func (d *document) pathItem(p *path) *jsontree.Value {
	servers := make(map[string][]string)
	var all [][]string
	for method, routes := range p.routes {
		servers[method] = d.serversOf(routes)
		all = append(all, servers[method])
	}
	same := !slices.ContainsFunc(all, func(s []string) bool { return !slices.Equal(s, all[0]) })

	operations, additional := jsontree.Object(), jsontree.Object()
	for _, method := range p.methods {
		fixed := rank(method) < len(fixedMethods)
		if d.version == OpenAPI31 && (!fixed || method == "QUERY") {
			d.left = append(d.left, "`"+method+" "+p.template+"`")
			continue
		}
		op := d.operation(method, p)
		if !same && !slices.Equal(servers[method], d.servers("")) {
			op.Set("servers", serverObjects(servers[method]))
		}
		if fixed {
			operations.Set(strings.ToLower(method), op)
		} else {
			additional.Set(method, op)
		}
	}
	if additional.Len() > 0 {
		operations.Set("additionalOperations", additional)
	}
	if operations.Len() == 0 {
		return operations
	}
	item := jsontree.Object()
	if same && !slices.Equal(all[0], d.servers("")) {
		item.Set("servers", serverObjects(all[0]))
	}
	if len(p.params) > 0 {
		params := jsontree.Array()
		for _, p := range p.params {
			params.Append(p.object())
		}
		item.Set("parameters", params)
	}
	for name, operation := range operations.All() {
		item.Set(name, operation)
	}
	return item
}

func (p param) object() *jsontree.Value {
	var description *jsontree.Value
	if p.rest {
		description = jsontree.Of("The rest of the path. It may be empty and may have slashes, which OpenAPI cannot express.")
	}
	return jsontree.Object("name", p.name, "in", "path", "required", true, "description", description, "schema", jsontree.Object("type", "string"))
}

// serversOf returns the base URLs of routes.
func (d *document) serversOf(routes []routeModel) []string {
	var all []string
	for _, r := range routes {
		all = union(all, d.servers(r.host))
	}
	return all
}

func serverObjects(urls []string) *jsontree.Value {
	all := jsontree.Array()
	for _, u := range urls {
		all.Append(jsontree.Object("url", u))
	}
	return all
}

func (d *document) operation(method string, p *path) *jsontree.Value {
	routes := p.routes[method]
	op := jsontree.Object(
		"operationId", d.id(method, p.template),
		"summary", method+" "+p.template,
		"description", describe(routes),
		"requestBody", requestBody(method, routes),
		"responses", d.responses(routes),
		"security", d.requirements(routes),
	)
	return op
}

// id returns a unique operationId.
func (d *document) id(method, template string) string {
	id := strings.ToLower(word(method))
	for _, segment := range strings.Split(template, "/") {
		id += word(segment)
	}
	id = firstFree(id, func(id string) bool { return !d.ids[id] })
	d.ids[id] = true
	return id
}

// word joins the words of a text in camel case, ASCII only.
func word(text string) string {
	var b strings.Builder
	begins := true
	for _, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z' && begins:
			b.WriteByte(c - 'a' + 'A')
			begins = false
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			b.WriteByte(c)
			begins = false
		default:
			begins = true
		}
	}
	return b.String()
}

// firstFree returns the first of name, name2, name3 and so on that is free.
func firstFree(name string, free func(string) bool) string {
	for candidate, n := name, 2; ; n++ {
		if free(candidate) {
			return candidate
		}
		candidate = fmt.Sprint(name, n)
	}
}

// describe returns the description of an operation: what a request needs.
func describe(routes []routeModel) string {
	var lines []string
	say := func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	for _, r := range routes {
		say("The route `%s`.", r.pattern)
		if r.methods == nil {
			say("It takes any method, also methods that are not listed here.")
		}
		c := r.chain
		if len(c.Scopes) > 0 {
			say("The caller needs the scopes %s.", listed(c.Scopes))
		}
		if c.AtLeast != "" {
			say("The caller needs the plan `%s` or a higher one.", c.AtLeast)
		}
		if len(c.Features) > 0 {
			say("The caller needs a plan with %s.", listed(c.Features))
		}
		if c.Optional {
			say("Requests without a key are admitted too.")
		}
	}
	return strings.Join(lines, " ")
}

// listed writes a list of names in Markdown.
func listed(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }

// requestBody returns what the Policies require of a body, or nil.
func requestBody(method string, routes []routeModel) *jsontree.Value {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions, http.MethodTrace:
		return nil // a body has no meaning there (RFC 9110 §9.3)
	}
	content := jsontree.Object()
	var most int64
	for _, r := range routes {
		types := r.chain.Types
		if types == nil && r.chain.MaxBody > 0 {
			types = []string{"*/*"}
		}
		for _, t := range types {
			content.Set(t, jsontree.Object())
		}
		most = max(most, r.chain.MaxBody)
	}
	if content.Len() == 0 {
		return nil
	}
	var description *jsontree.Value
	if most > 0 {
		description = jsontree.Of(fmt.Sprintf("At most %d bytes.", most))
	}
	return jsontree.Object("description", description, "content", content)
}

// requirements returns the security requirements of routes, any one of which is enough. They
// are empty for routes that require nothing.
func (d *document) requirements(routes []routeModel) *jsontree.Value {
	all := jsontree.Array()
	put := func(requirement *jsontree.Value) {
		for other := range all.Items() {
			if jsontree.Equal(other, requirement) {
				return
			}
		}
		all.Append(requirement)
	}
	open := false
	for _, r := range routes {
		open = open || r.chain.Optional || len(r.security) == 0
		for _, name := range r.security {
			d.used[name] = true
			put(jsontree.Object(name, r.chain.Scopes))
		}
	}
	if open && all.Len() > 0 {
		all.Append(jsontree.Object())
	}
	return all
}

// addSchemes writes the security schemes of the model.
func (d *document) addSchemes() error {
	for _, name := range slices.Sorted(maps.Keys(d.schemes)) {
		text, err := json.Marshal(d.schemes[name])
		if err != nil {
			return fmt.Errorf("Info.SecuritySchemes[%q]: %w", name, err)
		}
		scheme, err := jsontree.Parse(text)
		if err != nil {
			return fmt.Errorf("Info.SecuritySchemes[%q]: %w", name, err)
		}
		d.securitySchemes.Set(name, scheme)
	}
	return nil
}

// description describes the whole API. It is called after the paths have been written.
func (d *document) description() string {
	paragraphs := []string{}
	if d.info.Description != "" {
		paragraphs = append(paragraphs, d.info.Description)
	}
	codes := make(map[int]string)
	for _, row := range d.any {
		if row.field == "mux" {
			codes[row.Status] = row.Code
		}
	}
	paragraphs = append(paragraphs, fmt.Sprintf(
		"A path that is not listed gets %d `%s`; a method that a path does not support gets %d `%s`. HEAD is supported wherever GET is, and its response has no body.",
		http.StatusNotFound, codes[http.StatusNotFound], http.StatusMethodNotAllowed, codes[http.StatusMethodNotAllowed]))
	if len(d.left) > 0 {
		paragraphs = append(paragraphs, "Not listed, since OpenAPI "+string(d.version)+" does not have these methods: "+strings.Join(d.left, ", ")+".")
	}
	return strings.Join(paragraphs, "\n\n")
}
