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

	Envelope bool `json:"-"` // errors have that of admit, and none of the service's own
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
	For    string     `json:"for"` // whom they hold for
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
	Retry   string      `json:"retry"`            // of its first reason; others may differ
	Routes  []string    `json:"routes,omitempty"` // nil: any request
	Curl    string      `json:"curl,omitempty"`
	Example Example     `json:"example,omitzero"`
}

type reasonDoc struct {
	When    string   `json:"when"`
	Message string   `json:"message,omitempty"`
	Headers []string `json:"headers,omitempty"` // that it has, or may have
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

// factDoc is something that a route asks for, or promises.
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
			d.Limits = append(d.Limits, m.limitsOf(l))
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

// how shows what a request carries.
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

func (m model) limitsOf(l published.Limits) limitsDoc {
	d := limitsDoc{Policy: l.Policy, Legacy: l.Legacy}
	switch {
	case l.By == "address":
		d.For = "each client address"
	case l.By == "", !m.planned(l):
		d.For = "each caller"
	case l.Plan != "":
		d.For = "each caller on the plan " + l.Plan
	default:
		d.For = "each caller without a plan that has limits"
	}
	for _, limit := range l.Limits {
		d.Limits = append(d.Limits, limitDoc{Name: limit.Name, Requests: limit.Requests, Seconds: limit.Per.Seconds(), Burst: limit.Burst})
	}
	return d
}

// planned reports whether callers of some plan have other limits of the same Limiter.
func (m model) planned(l published.Limits) bool {
	return slices.ContainsFunc(m.limits, func(o published.Limits) bool { return o.Field == l.Field && o.Name == l.Name && o.Plan != "" })
}

// String says a limit as people do.
func (l limitDoc) String() string {
	s := fmt.Sprintf("%d in %s", l.Requests, seconds(l.Seconds))
	if l.Burst != l.Requests {
		s += fmt.Sprintf(", %d at once", l.Burst)
	}
	return s
}

func seconds(s float64) string { return short(time.Duration(s * float64(time.Second))) }

// short leaves out of a time what is zero at its end.
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
		return "No: such a request is never let in."
	case !a.Retryable:
		return "No: change the request first."
	case after && a.Code == "maintenance":
		return "Yes, after Retry-After if it is there, else later."
	case after && a.Status >= 500 && a.field == "handler":
		return "Yes, after Retry-After, if to do it twice is harmless."
	case after: // nothing has been done: admit has refused it before, or says so with 429
		return "Yes, after Retry-After."
	case a.Status >= 500:
		return "Yes, once, if to do it twice is harmless."
	case a.Status == http.StatusRequestTimeout:
		return "Yes, if it can be sent faster."
	default:
		return "Yes, after a while."
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
		who += ", or nothing"
	}
	fact("Authentication", cmp.Or(who, "none"))
	fact("Scopes", strings.Join(c.Scopes, " "))
	fact("Plan", atLeast(c.AtLeast))
	fact("Features", strings.Join(c.Features, ", "))
	fact("Answers in", strings.Join(c.Offers, ", "))
	fact("Takes", strings.Join(c.Types, ", "))
	fact("Content codings", strings.Join(c.Encodings, ", "))
	if c.MaxBody > 0 {
		fact("Largest body", fmt.Sprintf("%d bytes", c.MaxBody))
	}
	if c.FirstByte > 0 {
		fact("First byte within", short(c.FirstByte))
	}
	if c.Total > 0 {
		fact("Whole answer within", short(c.Total))
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
		return "The service could not answer."
	}
	return "The request cannot be answered as it is."
}

var meanings = map[int]string{
	400: "The request is malformed.",
	401: "The request does not say who calls, or not validly.",
	402: "The caller is known, and what it asks for is not part of its plan.",
	403: "The caller is known, and may not do this.",
	404: "There is no such resource.",
	405: "The resource does not take this method. Allow lists those that it takes.",
	406: "The resource cannot be sent in a media type that the client accepts.",
	408: "The service does not wait any longer for the client.",
	409: "The request conflicts with what is there.",
	413: "The body of the request is too large.",
	415: "The resource does not take a body of this kind.",
	422: "The request is well formed, and its content is not valid. The member errors lists what is wrong where.",
	429: "There are too many requests, from this caller or in all.",
	500: "The service has failed.",
	501: "The method is not one that HTTP knows.",
	502: "A service behind this one has failed.",
	503: "The service cannot answer for now.",
	504: "A service behind this one did not answer in time.",
}
