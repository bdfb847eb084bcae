package contract

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit/internal/published"
)

// pageDoc is the contract as it is read: the page, Markdown and JSON have the same.
type pageDoc struct {
	Title       string          `json:"title"`
	Version     string          `json:"version"`
	Description string          `json:"description,omitempty"`
	Servers     []string        `json:"servers"`
	Auth        []credentialDoc `json:"authentication,omitempty"`
	Plans       []planDoc       `json:"plans,omitempty"`
	Limits      []limitsDoc     `json:"limits,omitempty"`
	Quotas      []quotasDoc     `json:"quotas,omitempty"`
	Statuses    []statusDoc     `json:"statuses"`
	Routes      []routeDoc      `json:"routes"`

	Envelope bool `json:"-"` // all errors have the envelope of admit
}

type credentialDoc struct {
	ID  string `json:"id"`
	How string `json:"how"`
	SecurityScheme
}

type planDoc struct {
	Name       string   `json:"name"`
	Includes   string   `json:"includes,omitempty"`
	Features   []string `json:"features,omitempty"`
	UpgradeURL string   `json:"upgrade_url,omitempty"`
}

type limitsDoc struct {
	For    string     `json:"for"` // the callers that they apply to
	Limits []limitDoc `json:"limits"`
	Policy string     `json:"policy"` // the header RateLimit-Policy
	Legacy bool       `json:"legacy_headers,omitempty"`
}

type limitDoc struct {
	Name     string  `json:"name"`
	Requests int     `json:"requests"`
	Seconds  float64 `json:"per_seconds"`
	Burst    int     `json:"burst"`
}

type statusDoc struct {
	Status  int       `json:"status"`
	Name    string    `json:"name"`
	Meaning string    `json:"meaning"`
	Codes   []codeDoc `json:"codes"`
}

type codeDoc struct {
	Code    string      `json:"code"`
	Reasons []reasonDoc `json:"reasons"`
	Retry   string      `json:"retry"`            // for its first reason; others may differ
	Routes  []string    `json:"routes,omitempty"` // nil: any request
	Curl    string      `json:"curl,omitempty"`
	Example Example     `json:"example,omitzero"`
}

type reasonDoc struct {
	When    string   `json:"when"`
	Message string   `json:"message,omitempty"`
	Headers []string `json:"headers,omitempty"` // that the response has, or may have
	Retry   string   `json:"retry"`
}

type routeDoc struct {
	Pattern string      `json:"pattern"`
	Methods []string    `json:"methods,omitempty"` // nil: any
	Path    string      `json:"path"`
	Facts   []factDoc   `json:"facts,omitempty"`
	Curl    string      `json:"curl"`
	Answers []answerDoc `json:"answers"`
}

// factDoc is something that a route requires or promises.
type factDoc struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type answerDoc struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	When   string `json:"when"`
	Retry  string `json:"retry"`
}

func (m model) page() pageDoc {
	d := pageDoc{Title: m.info.Title, Version: m.info.Version, Description: m.info.Description, Servers: m.info.Servers}
	for _, name := range slices.Sorted(maps.Keys(m.schemes)) {
		s := m.schemes[name]
		d.Auth = append(d.Auth, credentialDoc{ID: name, How: s.how(), SecurityScheme: s})
	}
	for _, p := range m.plans {
		d.Plans = append(d.Plans, planDoc(p))
	}
	for _, l := range m.limits {
		if !l.DryRun {
			d.Limits = append(d.Limits, limitsOf(l))
		}
	}
	for _, q := range m.quotas {
		d.Quotas = append(d.Quotas, quotasOf(q))
	}
	d.Envelope = true
	for _, s := range m.statuses {
		d.Statuses = append(d.Statuses, m.statusOf(s))
		for _, c := range s.codes {
			d.Envelope = d.Envelope && !slices.ContainsFunc(c.rows, func(a Answer) bool {
				return a.Example.Body != "" && !strings.HasPrefix(a.Example.Body, `{"result":"error",`)
			})
		}
	}
	for _, r := range m.routes {
		d.Routes = append(d.Routes, m.routeOf(r))
	}
	return d
}

// how says where a request has the credential.
func (s SecurityScheme) how() string {
	switch {
	case s.Description != "":
		return s.Description
	case s.Type == "http" && strings.EqualFold(s.Scheme, "bearer"):
		return "Authorization: Bearer " + cmp.Or(s.BearerFormat, "TOKEN")
	case s.Type == "http":
		return "Authorization: " + s.Scheme
	case s.Type == "apiKey":
		return "the " + s.In + " " + s.Name
	case s.Type == "mutualTLS":
		return "a client certificate"
	default:
		return s.Type
	}
}

func limitsOf(l published.Limits) limitsDoc {
	d := limitsDoc{Policy: l.Policy, Legacy: l.Legacy}
	switch {
	case l.By == "address":
		d.For = "each client address"
	case l.Plan != "":
		d.For = "each caller on the plan " + l.Plan
	case l.Others:
		d.For = "each caller without a plan that has limits"
	default:
		d.For = "each caller"
	}
	for _, limit := range l.Limits {
		d.Limits = append(d.Limits, limitDoc{Name: limit.Name, Requests: limit.Requests, Seconds: limit.Per.Seconds(), Burst: limit.Burst})
	}
	return d
}

// String writes the limit for people.
func (l limitDoc) String() string {
	s := fmt.Sprintf("%d per %s", l.Requests, seconds(l.Seconds))
	if l.Burst != l.Requests {
		s += fmt.Sprintf(", burst %d", l.Burst)
	}
	return s
}

func seconds(s float64) string { return short(time.Duration(s * float64(time.Second))) }

// short writes a duration without zero units at its end.
func short(d time.Duration) string {
	s := d.String()
	if rest, ok := strings.CutSuffix(s, "m0s"); ok {
		s = rest + "m"
	}
	if rest, ok := strings.CutSuffix(s, "h0m"); ok {
		s = rest + "h"
	}
	return s
}

func (m model) statusOf(s statusModel) statusDoc {
	d := statusDoc{Status: s.status, Name: published.Title(s.status), Meaning: meaningOf(s.status)}
	for _, c := range s.codes {
		first := c.rows[0]
		code := codeDoc{Code: c.code, Retry: retryOf(first), Example: first.Example}
		for _, row := range c.rows {
			code.Reasons = append(code.Reasons, reasonDoc{row.When, row.Message, row.Headers, retryOf(row)})
		}
		if !slices.Contains(c.routes, "") {
			code.Routes = c.routes
		}
		code.Curl = m.provoke(c)
		d.Codes = append(d.Codes, code)
	}
	return d
}

// retryOf says whether to send a request again, and when.
func retryOf(a Answer) string {
	after := slices.Contains(a.Headers, "Retry-After")
	switch {
	case !a.Retryable && a.Status == http.StatusTooManyRequests:
		return "No: such a request is never admitted."
	case !a.Retryable:
		return "No: change the request first."
	case after && a.Code == "maintenance":
		return "Yes, after Retry-After if it is present, otherwise later."
	case after && a.Status >= 500 && a.field == "handler":
		return "Yes, after Retry-After, if the request is idempotent."
	case after: // the handler has not run, or says with 429 that it has done nothing
		return "Yes, after Retry-After."
	case a.Status >= 500:
		return "Yes, once, if the request is idempotent."
	case a.Status == http.StatusRequestTimeout:
		return "Yes, if it can be sent faster."
	default:
		return "Yes, later."
	}
}

func (m model) routeOf(r routeModel) routeDoc {
	d := routeDoc{Pattern: r.pattern, Methods: r.methods, Path: r.host + r.path, Curl: m.curl(r, curlChange{})}
	fact := func(name, value string) {
		if value != "" {
			d.Facts = append(d.Facts, factDoc{name, value})
		}
	}
	c := r.chain
	who := strings.Join(r.security, " or ")
	if who != "" && c.Optional {
		who += ", or none"
	}
	fact("Authentication", cmp.Or(who, "none"))
	fact("Scopes", strings.Join(c.Scopes, " "))
	fact("Plan", atLeast(c.AtLeast))
	fact("Features", strings.Join(c.Features, ", "))
	fact("Response media types", strings.Join(c.Offers, ", "))
	fact("Request media types", strings.Join(c.Types, ", "))
	fact("Request content codings", strings.Join(c.Encodings, ", "))
	if c.MaxBody > 0 {
		fact("Largest request body", fmt.Sprintf("%d bytes", c.MaxBody))
	}
	if c.FirstByte > 0 {
		fact("First byte within", short(c.FirstByte))
	}
	if c.Total > 0 {
		fact("Whole response within", short(c.Total))
	}
	for i, a := range r.answers {
		if i > 0 && a.Status == r.answers[i-1].Status && a.Code == r.answers[i-1].Code && retryOf(a) == retryOf(r.answers[i-1]) {
			last := &d.Answers[len(d.Answers)-1]
			if !strings.Contains(last.When, a.When) {
				last.When += " " + a.When
			}
			continue
		}
		d.Answers = append(d.Answers, answerDoc{a.Status, a.Code, a.When, retryOf(a)})
	}
	return d
}

func atLeast(plan string) string {
	if plan == "" {
		return ""
	}
	return plan + " or above"
}

// meaningOf says what a status means in any contract (RFC 9110 §15, RFC 6585).
func meaningOf(status int) string {
	if m := meanings[status]; m != "" {
		return m
	}
	if status >= 500 {
		return "The service could not answer the request."
	}
	return "The service cannot answer the request as it is."
}

var meanings = map[int]string{
	400: "The request is malformed.",
	401: "The request has no valid credential.",
	402: "The plan of the caller does not include this.",
	403: "The caller is known, but may not do this.",
	404: "There is no such resource.",
	405: "The resource does not support this method. The header Allow lists the methods that it supports.",
	406: "The resource is not available in a media type that the client accepts.",
	408: "The service has stopped waiting for the request.",
	409: "The request conflicts with the current state of the resource.",
	413: "The request body is too large.",
	415: "The resource does not accept a request body in this format.",
	422: "The request is well formed, but its content is not valid. The member errors says what is wrong, and where.",
	429: "There are too many requests, from this caller or in total.",
	500: "The service has failed.",
	501: "The service does not recognize the method.",
	502: "An upstream service has failed.",
	503: "The service is unavailable for now.",
	504: "An upstream service did not respond in time.",
}
