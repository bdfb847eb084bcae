package contract

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/jsontree"
	"github.com/admit-go/admit/internal/published"
)

// parts are the components of a document, collected while it is written.
type parts struct {
	headers         map[string]*jsontree.Value
	schemas         map[string]bool
	securitySchemes *jsontree.Value
	used            map[string]bool // of the security schemes
	shared          *jsontree.Value // responses
}

func (p *parts) init() {
	p.headers, p.schemas, p.used = make(map[string]*jsontree.Value), make(map[string]bool), make(map[string]bool)
	p.securitySchemes, p.shared = jsontree.Object(), jsontree.Object()
}

// responses returns the Responses Object of an operation: its success, and one response for
// each status with the codes that it may have.
func (d *document) responses(routes []routeModel) *jsontree.Value {
	byStatus := make(map[int][]Answer)
	for _, r := range routes {
		for _, row := range r.answers {
			row.Headers = union(row.Headers, d.around(r, row))
			all := byStatus[row.Status]
			if i := slices.IndexFunc(all, row.same); i >= 0 {
				all[i].Headers = union(all[i].Headers, row.Headers)
			} else {
				byStatus[row.Status] = append(all, row)
			}
		}
	}
	all := jsontree.Object("2XX", d.success(routes))
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		all.Set(strconv.Itoa(status), d.response(status, byStatus[status]))
	}
	return all
}

func (row Answer) same(o Answer) bool {
	return o.Code == row.Code && o.Message == row.Message && o.When == row.When
}

// inOrder are the names of the fields of a Policy, which are in the order of the chain. What
// is not among them, such as a handler, is inside all of them.
var inOrder = func() (names []string) {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[admit.Policy]()) {
		names = append(names, field.Name)
	}
	return names
}()

// around returns the headers that middlewares outside of the one that answers have set.
func (d *document) around(r routeModel, row Answer) (names []string) {
	isInside := func(field string, outer bool) bool {
		at := slices.Index(inOrder, row.field)
		switch own := row.Route != ""; {
		case row.field == "" || outer && own:
			return true
		case own != !outer:
			return false
		default:
			return at < 0 || at > slices.Index(inOrder, field)
		}
	}
	for i, l := range r.chain.Limits {
		if isInside(l.Field, i < len(d.outer.Limits)) {
			names = union(names, limitHeaders(l))
		}
	}
	if len(r.chain.Quotas) > 0 && isInside("Quotas", len(d.outer.Quotas) > 0) {
		names = union(names, quotaHeaders)
	}
	if len(r.chain.Offers) > 0 && isInside("Negotiator", slices.Equal(r.chain.Offers, d.outer.Offers)) {
		names = union(names, []string{"Vary"})
	}
	return names
}

// quotaHeaders are the headers that Quotas set.
var quotaHeaders = []string{"RateLimit", "RateLimit-Policy"}

// limitHeaders are the headers that a Limiter sets.
func limitHeaders(l published.Limits) []string {
	names := []string{"RateLimit", "RateLimit-Policy"}
	if l.Legacy {
		names = append(names, "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
	}
	return names
}

// success describes what a Policy knows about the response of a handler.
func (d *document) success(routes []routeModel) *jsontree.Value {
	names, content := []string{"X-Request-ID"}, jsontree.Object()
	for _, r := range routes {
		offers := r.chain.Offers
		if len(offers) > 0 {
			names = union(names, []string{"Vary"})
		} else {
			offers = []string{"application/json"}
		}
		for _, offer := range offers {
			media := jsontree.Object()
			if offer == "application/json" {
				media.Set("schema", d.schema("Success"))
			}
			content.Set(offer, media)
		}
		for _, l := range r.chain.Limits {
			names = union(names, limitHeaders(l))
		}
		if len(r.chain.Quotas) > 0 {
			names = union(names, quotaHeaders)
		}
	}
	return jsontree.Object("description", "Success.", "headers", d.headersOf(names), "content", content)
}

// response describes all responses with one status.
func (d *document) response(status int, rows []Answer) *jsontree.Value {
	var names, codes, reasons []string
	whens := make(map[string][]string) // by code
	for _, row := range rows {
		names = union(names, row.Headers)
		for name := range row.Example.Header {
			if name != "Content-Type" {
				names = union(names, []string{name})
			}
		}
		codes = union(codes, []string{row.Code})
		whens[row.Code] = union(whens[row.Code], []string{row.When})
	}
	for _, code := range codes {
		reason := "- "
		if code != "" {
			reason += "`" + code + "`: "
		}
		reasons = append(reasons, reason+strings.Join(whens[code], " "))
	}
	description := published.Title(status) + ".\n\n" + strings.Join(reasons, "\n")
	if published.Retryable(status) && slices.ContainsFunc(rows, func(a Answer) bool { return a.Retryable }) {
		description += "\n\nThe same request may succeed later."
	}
	var headers, content *jsontree.Value
	if len(names) > 0 {
		headers = d.headersOf(names)
		content = d.content(rows)
	}
	return jsontree.Object("description", description, "headers", headers, "content", content)
}

// content describes the bodies that a status may have. Where admit does not write the
// response, the body may be anything.
func (d *document) content(rows []Answer) *jsontree.Value {
	examples := make(map[string]*jsontree.Value) // by media type
	var codes []string
	own, foreign := false, false
	for _, row := range rows {
		if row.Code == "" {
			foreign = true
			continue
		}
		if own = own || row.own; !row.own {
			codes = union(codes, []string{row.Code})
		}
		mediaType := row.Example.Header["Content-Type"][0]
		if examples[mediaType] == nil {
			examples[mediaType] = jsontree.Object()
		}
		value, err := jsontree.Parse([]byte(row.Example.Body))
		if err != nil || !isJSON(mediaType) {
			value = jsontree.Of(row.Example.Body)
		}
		name := firstFree(row.Code, func(name string) bool { return examples[mediaType].Get(name) == nil })
		examples[mediaType].Set(name, jsontree.Object("summary", row.When, "value", value))
	}
	content := jsontree.Object()
	for _, mediaType := range slices.Sorted(maps.Keys(examples)) {
		var schema *jsontree.Value
		if mediaType == "application/json" && !own && !foreign {
			schema = d.withCodes("Error", codes)
		}
		content.Set(mediaType, jsontree.Object("schema", schema, "examples", examples[mediaType]))
	}
	if len(codes) > 0 {
		content.Set("application/problem+json", jsontree.Object("schema", d.withCodes("Problem", codes)))
	}
	if foreign {
		content.Set("*/*", jsontree.Object())
	}
	return content
}

func isJSON(mediaType string) bool {
	essence, _, _ := strings.Cut(mediaType, ";")
	essence = strings.ToLower(strings.TrimSpace(essence))
	return essence == "application/json" || strings.HasSuffix(essence, "+json")
}

// withCodes returns a schema whose code is one of codes.
func (d *document) withCodes(schema string, codes []string) *jsontree.Value {
	enum := jsontree.Object("type", "string", "enum", codes)
	return jsontree.Object("allOf", jsontree.Array(d.schema(schema), jsontree.Object("type", "object", "properties", jsontree.Object("code", enum))))
}

// schema returns a reference to a schema, which it makes a component.
func (d *document) schema(name string) *jsontree.Value {
	d.schemas[name] = true
	return reference("schemas", name)
}

func reference(section, name string) *jsontree.Value {
	return jsontree.Object("$ref", "#/components/"+section+"/"+name)
}

// headersOf returns references to headers, which it makes components.
func (d *document) headersOf(names []string) *jsontree.Value {
	all := jsontree.Object()
	for _, name := range slices.Sorted(slices.Values(names)) {
		component := strings.Map(func(r rune) rune {
			if strings.ContainsRune("!#$%&'*+^`|~", r) { // allowed in a header name, not in that of a component
				return '_'
			}
			return r
		}, name)
		if d.headers[component] == nil {
			d.headers[component] = d.header(name)
		}
		all.Set(name, reference("headers", component))
	}
	return all
}

// header describes a header of a response.
func (d *document) header(name string) *jsontree.Value {
	text := func(description, example string) *jsontree.Value {
		var value *jsontree.Value
		if example != "" {
			value = jsontree.Of(example)
		}
		return jsontree.Object("description", description, "schema", jsontree.Object("type", "string"), "example", value)
	}
	number := func(description string) *jsontree.Value {
		return jsontree.Object("description", description, "schema", jsontree.Object("type", "integer", "minimum", 0))
	}
	var policy, exhausted string
	switch {
	case len(d.limits) > 0:
		policy, exhausted = d.limits[0].Policy, d.limits[0].Exhausted
	case len(d.quotas) > 0:
		policy, exhausted = d.quotas[0].Policy, d.quotas[0].Exhausted
	}
	switch name {
	case "Retry-After":
		return number("The seconds to wait before sending the request again (RFC 9110 §10.2.3).")
	case "WWW-Authenticate":
		return text("The ways to authenticate (RFC 9110 §11.6.1).", "")
	case "Allow":
		return text("The methods that the resource supports (RFC 9110 §10.2.1).", "")
	case "Accept", "Accept-Post", "Accept-Patch", "Accept-Query":
		return text("The media types that the resource accepts.", "")
	case "Accept-Encoding":
		return text("The content codings that the resource accepts (RFC 9110 §12.5.3).", "")
	case "RateLimit":
		return text("What is left of each limit: r requests, if they are spread evenly over t seconds. Where r is 0, the next request is admitted after t seconds. A quota is renewed after t seconds.", exhausted)
	case "RateLimit-Policy":
		return text("The rate limits, and the quotas of this period: q requests in w seconds.", policy)
	case "X-RateLimit-Limit":
		return number("The requests of the limit that is closest to being used up.")
	case "X-RateLimit-Remaining":
		return number("The requests that are left of that limit.")
	case "X-RateLimit-Reset":
		return number("The seconds until that limit is full again or, in a 429, until it admits the request.")
	case "X-Request-ID":
		return text("The id of the request. Quote it when you report a problem.", exampleID)
	case "Vary":
		return text("The request headers that the response depends on (RFC 9110 §12.5.5).", "")
	case "Cache-Control":
		return text("Whether the response may be stored (RFC 9111 §5.2).", "")
	case "X-Content-Type-Options":
		return text("With nosniff, the body is what Content-Type says.", "")
	default:
		return text("See the documentation of the service.", "")
	}
}

// share makes a component of each response that more than one operation has.
func (d *document) share(paths *jsontree.Value) *jsontree.Value {
	uses, texts := make(map[string]int), make(map[*jsontree.Value]string)
	each := func(f func(responses *jsontree.Value, status string, response *jsontree.Value)) {
		for _, item := range paths.All() {
			for op := range operationsOf(item) {
				for status, response := range op.Get("responses").All() {
					f(op.Get("responses"), status, response)
				}
			}
		}
	}
	each(func(_ *jsontree.Value, _ string, response *jsontree.Value) {
		texts[response] = string(response.Write())
		uses[texts[response]]++
	})
	names := make(map[string]string)
	each(func(responses *jsontree.Value, status string, response *jsontree.Value) {
		text := texts[response]
		if uses[text] == 1 {
			return
		}
		if names[text] == "" {
			name := "Success"
			if n, err := strconv.Atoi(status); err == nil {
				name = word(published.Title(n))
			}
			names[text] = firstFree(name, func(name string) bool { return d.shared.Get(name) == nil })
			d.shared.Set(names[text], response)
		}
		responses.Set(status, reference("responses", names[text]))
	})
	return paths
}

// operationsOf yields the operations of a Path Item Object.
func operationsOf(item *jsontree.Value) func(yield func(*jsontree.Value) bool) {
	return func(yield func(*jsontree.Value) bool) {
		for name, op := range item.All() {
			switch {
			case slices.Contains(fixedMethods, strings.ToUpper(name)):
				if !yield(op) {
					return
				}
			case name == "additionalOperations":
				for _, op := range op.All() {
					if !yield(op) {
						return
					}
				}
			}
		}
	}
}

// components returns the Components Object, with what the document refers to. It is called
// after the paths have been written.
func (d *document) components() *jsontree.Value {
	schemas, headers, schemes := jsontree.Object(), jsontree.Object(), jsontree.Object()
	for _, name := range slices.Sorted(maps.Keys(d.schemas)) {
		schemas.Set(name, schemaObjects[name]())
	}
	for _, name := range slices.Sorted(maps.Keys(d.headers)) {
		headers.Set(name, d.headers[name])
	}
	for name, scheme := range d.securitySchemes.All() {
		if d.used[name] {
			schemes.Set(name, scheme)
		}
	}
	components := jsontree.Object()
	for _, section := range []struct {
		name string
		of   *jsontree.Value
	}{{"schemas", schemas}, {"responses", d.shared}, {"headers", headers}, {"securitySchemes", schemes}} {
		if section.of.Len() > 0 {
			components.Set(section.name, section.of)
		}
	}
	return components
}

// schemaObjects describe the bodies that admit writes.
var schemaObjects = map[string]func() *jsontree.Value{
	"Success": func() *jsontree.Value {
		return jsontree.Object(
			"description", "The envelope of a success.",
			"type", "object",
			"required", []string{"result"},
			"properties", jsontree.Object(
				"result", jsontree.Object("type", "string", "enum", []string{"success"}),
				"data", jsontree.Object("description", "The result of the request."),
			),
		)
	},
	"Error": func() *jsontree.Value {
		properties := jsontree.Object(
			"result", jsontree.Object("type", "string", "enum", []string{"error"}),
			"message", jsontree.Object("type", "string", "description", "The reason, for people."),
		)
		addMembers(properties, "limits")
		return jsontree.Object(
			"description", "The envelope of every error. Some codes have more members.",
			"type", "object",
			"required", []string{"result", "message", "code"},
			"properties", properties,
		)
	},
	"Problem": func() *jsontree.Value {
		properties := jsontree.Object(
			"type", jsontree.Object("type", "string", "format", "uri-reference"),
			"title", jsontree.Object("type", "string", "description", "The name of the status."),
			"status", jsontree.Object("type", "integer", "minimum", http.StatusBadRequest, "maximum", 599),
			"detail", jsontree.Object("type", "string", "description", "The reason, for people."),
		)
		addMembers(properties, "violated-policies")
		return jsontree.Object(
			"description", "The same error as problem details (RFC 9457), for a client that prefers application/problem+json.",
			"type", "object",
			"required", []string{"type", "title", "status", "detail", "code"},
			"properties", properties,
		)
	},
}

// addMembers adds the members that an error has in both forms. The member that lists the
// limits has another name in each.
func addMembers(properties *jsontree.Value, limits string) {
	text := jsontree.Object("type", "string")
	properties.Set("code", jsontree.Object("type", "string", "description", "The reason, for programs."))
	properties.Set("request_id", jsontree.Object("type", "string", "description", "The id of the request, as in the header X-Request-ID."))
	properties.Set("retry_after", jsontree.Object("type", "integer", "minimum", 1, "description", "The seconds to wait, as in the header Retry-After."))
	properties.Set("errors", jsontree.Object(
		"type", "array",
		"description", "The problems in the content of the request.",
		"items", jsontree.Object(
			"type", "object",
			"required", []string{"path", "code", "message"},
			"properties", jsontree.Object("path", text, "code", text, "message", text),
		),
	))
	properties.Set(limits, jsontree.Object(
		"type", "array",
		"description", "The names of the limits and quotas that are used up, as in the header RateLimit-Policy.",
		"items", text,
	))
}
