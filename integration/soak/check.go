package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/admit-go/admit/integration/contract/answers"
)

// outcome is what a request can get: a status, with the code of the envelope for an
// error, and whether it was decided on after the limits.
type outcome struct {
	status  int
	code    string
	counted bool
}

// answer is what has come, as a whole.
type answer struct {
	status         int
	proto          int
	header         http.Header
	body           []byte
	length         int64 // as announced; -1: not
	sent, received time.Time
	err            error // there was none, or not a whole one
}

func (a *answer) String() string {
	if a.err != nil {
		return "no answer: " + a.err.Error()
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/%d %d after %v\n", a.proto, a.status, a.received.Sub(a.sent))
	_ = a.header.Write(&b)
	fmt.Fprintf(&b, "\n%s", a.body)
	return b.String()
}

// admitted reports whether the limits have let the request in: then the answer has their
// header.
func (a *answer) admitted() bool {
	return a.header["Ratelimit"] != nil && a.status != http.StatusTooManyRequests
}

// secrets are how all tokens begin, and what else is sent as a credential. No answer and
// no line of the log has them.
var secrets = regexp.MustCompile(`demo_(free|pro|trader)_|s3cret`)

// check returns an error unless the answer is one that the request can get, whole and as
// the contract says.
func (q *request) check(a *answer) error {
	if a.err != nil {
		if q.maybeCut {
			return nil
		}
		return errors.New("there is no whole answer")
	}
	var head bytes.Buffer
	_ = a.header.Write(&head)
	if secrets.Match(a.body) || secrets.Match(head.Bytes()) {
		return errors.New("the answer contains a credential")
	}
	if id := a.header.Get("X-Request-Id"); id != q.id && q.id != "" || !requestID.MatchString(id) {
		return fmt.Errorf("X-Request-Id is %q", id)
	}
	if a.proto == 2 && a.header.Get("Connection") != "" {
		return errors.New("an answer over HTTP/2 has Connection")
	}
	if q.method == http.MethodHead {
		if len(a.body) > 0 {
			return errors.New("the answer to HEAD has a body")
		}
	} else if a.length >= 0 && a.length != int64(len(a.body)) {
		return fmt.Errorf("Content-Length is %d, the body has %d bytes", a.length, len(a.body))
	}

	e, err := q.envelope(a)
	if err != nil {
		return err
	}
	possible := q.possible(a)
	at := slices.IndexFunc(possible, func(o outcome) bool {
		return o.status == a.status && (o.code == e.Code || q.method == http.MethodHead)
	})
	if at < 0 {
		return fmt.Errorf("%d %s is not one of %v", a.status, e.Code, possible)
	}
	if a.status < 400 && q.method != http.MethodHead {
		if err := q.right(a); err != nil {
			return err
		}
	}
	return errors.Join(q.headers(a, e), q.limits(a, possible[at].counted), q.quota(a, possible[at].counted))
}

// documented returns an error unless the document has the answer.
func (q *request) documented(d *answers.Document, a *answer) error {
	r, err := q.build(context.Background(), "localhost")
	if err != nil {
		return err
	}
	_, err = d.Check(r, answers.Answer{Status: a.status, Header: a.header, Body: a.body})
	return err
}

var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// possible is what the request can get at the time that it was there.
func (q *request) possible(a *answer) []outcome {
	if q.caller == nil {
		return q.want
	}
	accepted, refused := q.keys.standing(q.caller, a.sent, a.received)
	var all []outcome
	if accepted {
		all = q.want
	}
	if refused {
		all = append(slices.Clip(all), outcome{401, "key_invalid", false})
	}
	return all
}

// envelope is an error, also as problem details.
type envelope struct {
	Result     string   `json:"result"`
	Type       string   `json:"type"`
	Title      string   `json:"title"`
	Status     int      `json:"status"`
	Detail     string   `json:"detail"`
	Message    string   `json:"message"`
	Code       string   `json:"code"`
	RequestID  string   `json:"request_id"`
	RetryAfter int      `json:"retry_after"`
	UpgradeURL string   `json:"upgrade_url"`
	ResetsAt   string   `json:"resets_at"`
	Offers     []string `json:"offers"`
	Limits     []string `json:"limits"`
	Violated   []string `json:"violated-policies"`
	Errors     []struct {
		Path    string `json:"path"`
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
}

// envelope parses what an error has as its body, strictly.
func (q *request) envelope(a *answer) (e envelope, err error) {
	if a.status < 400 {
		return e, nil
	}
	h := a.header
	contentType := "application/json"
	if q.problem {
		contentType = "application/problem+json"
	}
	switch {
	case !slices.Equal(h["Content-Type"], []string{contentType}):
		return e, fmt.Errorf("Content-Type of an error is %q, not %s", h["Content-Type"], contentType)
	case !slices.Equal(h["X-Content-Type-Options"], []string{"nosniff"}):
		return e, errors.New("an error without nosniff")
	case !slices.Equal(h["Cache-Control"], []string{"no-store"}):
		return e, errors.New("an error without no-store")
	case a.length < 0 || q.method == http.MethodHead && a.length < 50:
		return e, fmt.Errorf("an error has the Content-Length %d", a.length)
	case q.method == http.MethodHead:
		return e, nil
	}
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e, fmt.Errorf("the body is not the envelope: %w", err)
	}
	begin := `{"result":"error","message":"`
	if q.problem {
		kind := "about:blank"
		if a.limited(e) {
			kind = "https://iana.org/assignments/http-problem-types#quota-exceeded"
		}
		begin = `{"type":"` + kind + `","title":"` + title(a.status) + `","status":` + strconv.Itoa(a.status) + `,"detail":"`
		e.Limits, e.Violated = e.Violated, e.Limits
	}
	switch {
	case !bytes.HasPrefix(a.body, []byte(begin)) || string(a.body[dec.InputOffset():]) != "\n":
		return e, errors.New("the envelope does not begin and end as it should")
	case e.Message == "" && e.Detail == "" || e.Code == "":
		return e, errors.New("the envelope has no message or no code")
	case e.RequestID != h.Get("X-Request-Id"):
		return e, errors.New("the envelope does not have the request id")
	case len(e.Violated) > 0 || a.limited(e) != (len(e.Limits) > 0):
		return e, fmt.Errorf("the envelope names the limits %q, and %q", e.Limits, e.Violated)
	}
	return e, nil
}

// limited reports whether a is the refusal of a Limiter or of Quotas.
func (a *answer) limited(e envelope) bool {
	return a.status == 429 && (e.Code == "rate_limited" || e.Code == "quota_exceeded")
}

// headers checks what the contract asks for at each status, and that nothing else has it.
func (q *request) headers(a *answer, e envelope) error {
	h, head := a.header, q.method == http.MethodHead
	want := func(name string, values ...string) error {
		if !slices.Equal(h.Values(name), values) {
			return fmt.Errorf("%s is %q, not %q", name, h.Values(name), values)
		}
		return nil
	}
	var faults []error
	note := func(err error) { faults = append(faults, err) }
	if a.status == 405 || a.status == 501 || a.status == 204 {
		note(want("Allow", q.allow))
	} else {
		note(want("Allow"))
	}

	challenge := func(problem string) error {
		if problem != "" {
			problem = `, error="` + problem + `"`
		}
		return want("WWW-Authenticate", `Bearer realm="market data"`+problem, `ApiKey in="header", name="X-Api-Key", realm="market data"`+problem)
	}
	switch {
	case a.status == 401 && q.bare:
		note(challenge(""))
	case a.status == 401:
		note(challenge("invalid_token"))
	case a.status == 403:
		note(want("WWW-Authenticate", `Bearer error="insufficient_scope", scope="orders:write"`))
	case a.status == 400 && q.two:
		note(challenge("invalid_request"))
	default:
		note(want("WWW-Authenticate"))
	}

	wait, _ := strconv.Atoi(h.Get("Retry-After"))
	if (a.status == 429) != (wait >= 1) || !head && e.RetryAfter != wait {
		note(fmt.Errorf("Retry-After is %q, retry_after is %d", h["Retry-After"], e.RetryAfter))
	}
	for _, name := range e.Limits {
		if !strings.Contains(strings.Join(h.Values("RateLimit"), ", "), `"`+name+`";r=0;`) {
			note(fmt.Errorf("the limit %q is not reached", name))
		}
	}
	switch {
	case a.status == 415 && q.encoded:
		note(errors.Join(want("Accept-Encoding", "identity"), want("Accept"), want("Accept-Post")))
	case a.status == 415:
		note(errors.Join(want("Accept-Encoding"), want("Accept", "application/json"), want("Accept-Post", "application/json")))
	case a.status == 204 && q.method == http.MethodOptions && strings.HasPrefix(h.Get("Allow"), "POST"):
		note(errors.Join(want("Accept-Encoding"), want("Accept"), want("Accept-Post", "application/json")))
	default:
		note(errors.Join(want("Accept-Encoding"), want("Accept"), want("Accept-Post")))
	}
	if q.varies && (a.admitted() || q.kind == "contract") {
		note(want("Vary", "Accept"))
	} else {
		note(want("Vary"))
	}
	exceeded := e.Code == "quota_exceeded"
	if resets, err := time.Parse(time.RFC3339, e.ResetsAt); exceeded && (err != nil || !resets.Equal(monthAfter(a.sent))) || !exceeded && e.ResetsAt != "" {
		note(fmt.Errorf("resets_at is %q", e.ResetsAt))
	}
	if (a.status == 402 || exceeded) != (e.UpgradeURL == "https://example.com/plans/pro") && !head {
		note(fmt.Errorf("upgrade_url is %q", e.UpgradeURL))
	}
	if (a.status == 406) != slices.Equal(e.Offers, []string{"application/json", "text/csv"}) && !head {
		note(fmt.Errorf("offers are %q", e.Offers))
	}
	if (a.status == 422) != (len(e.Errors) > 0) {
		note(fmt.Errorf("the errors are %v", e.Errors))
	}
	var paths []string
	for _, one := range e.Errors {
		paths = append(paths, one.Path)
		if one.Code == "" || one.Message == "" {
			note(fmt.Errorf("the error of %q has no code or message", one.Path))
		}
	}
	if a.status == 422 && q.paths != nil && !slices.Equal(paths, q.paths) {
		note(fmt.Errorf("the errors are at %q, not at %q", paths, q.paths))
	}
	return errors.Join(faults...)
}

var rateLimit = regexp.MustCompile(`^"(\w+)";r=(\d+);t=(\d+)$`)

// limits checks the headers of what was counted.
func (q *request) limits(a *answer, counted bool) error {
	h := a.header
	if !counted {
		if h["Ratelimit"] != nil || h["Ratelimit-Policy"] != nil {
			return errors.New("an answer that was not counted has RateLimit")
		}
		return nil
	}
	if q.caller == nil {
		return errors.New("nobody was counted")
	}
	var policy []string
	limits := limitsOf(q.caller.key.Plan)
	states := strings.Split(h.Get("RateLimit"), ", ")
	if len(states) != len(limits) {
		return fmt.Errorf("RateLimit is %q", h["Ratelimit"])
	}
	blocked := len(h["Ratelimit"]) > 1 && a.status == http.StatusTooManyRequests // by a quota
	for i, l := range limits {
		policy = append(policy, fmt.Sprintf("%q;q=%d;w=%d", l.Name, l.Requests, int(l.Per.Seconds())))
		m := rateLimit.FindStringSubmatch(states[i])
		if m == nil || m[1] != l.Name {
			return fmt.Errorf("RateLimit is %q", h["Ratelimit"])
		}
		left, _ := strconv.Atoi(m[2])
		if left > l.Requests {
			return fmt.Errorf("RateLimit is %q: more is left than there can be", h["Ratelimit"])
		}
		blocked = blocked || left == 0 && m[3] == h.Get("Retry-After")
	}
	if p := strings.Join(policy, ", "); h.Get("RateLimit-Policy") != p {
		return fmt.Errorf("RateLimit-Policy is %q, not %q", h["Ratelimit-Policy"], p)
	}
	if a.status == 429 && !blocked {
		return fmt.Errorf("RateLimit is %q: no limit refuses for the %s of Retry-After", h["Ratelimit"], h.Get("Retry-After"))
	}
	return nil
}

// monthAfter is when the quotas of a time are renewed.
func monthAfter(at time.Time) time.Time {
	at = at.UTC()
	return time.Date(at.Year(), at.Month()+1, 1, 0, 0, 0, 0, time.UTC)
}

// quota checks the headers of what the limits have let in: the second line of each.
func (q *request) quota(a *answer, counted bool) error {
	h := a.header
	policies, states := h["Ratelimit-Policy"], h["Ratelimit"]
	if !counted || len(states) == 1 && a.status == http.StatusTooManyRequests || q.kind == "usage" || quotaOf(q.caller.key) == nil {
		if len(states) > 1 || len(policies) > 1 {
			return fmt.Errorf("RateLimit is %q, where no quota was counted", states)
		}
		return nil
	}
	if len(states) != 2 || len(policies) != 2 {
		return fmt.Errorf("RateLimit is %q, and has no quota", states)
	}
	quota, resets := quotaOf(q.caller.key), monthAfter(a.sent)
	policy := fmt.Sprintf("%q;q=%d;w=%d", quota.Name, quota.Requests, int(resets.Sub(resets.AddDate(0, -1, 0)).Seconds()))
	if policies[1] != policy {
		return fmt.Errorf("RateLimit-Policy is %q, not %q", policies[1], policy)
	}
	m := rateLimit.FindStringSubmatch(states[1])
	if m == nil || m[1] != quota.Name {
		return fmt.Errorf("RateLimit is %q", states[1])
	}
	left, _ := strconv.ParseInt(m[2], 10, 64)
	if left > quota.Requests || a.status == http.StatusTooManyRequests && (left != 0 || m[3] != h.Get("Retry-After")) {
		return fmt.Errorf("RateLimit is %q, Retry-After is %q", states[1], h["Retry-After"])
	}
	return nil
}

// title is the name of a status in RFC 9110, which net/http has under older names.
func title(status int) string {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return "Content Too Large"
	case http.StatusUnprocessableEntity:
		return "Unprocessable Content"
	default:
		return http.StatusText(status)
	}
}
