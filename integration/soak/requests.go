package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/admit-go/admit"
)

// request is what is sent, and what is known of its answer.
type request struct {
	kind         string
	method, path string
	header       http.Header
	body         []byte
	chunked      bool

	keys     *keyring
	caller   *caller   // whose key it has; nil: nobody's
	want     []outcome // for a caller whose key is accepted
	right    func(*answer) error
	id       string // is kept; empty: the service makes one
	allow    string
	paths    []string // of the errors; nil: any
	problem  bool     // errors are problem details
	bare     bool     // a 401 is for a missing key
	two      bool     // a 400 is for two keys
	encoded  bool     // a 415 is for the encoding
	varies   bool     // by Accept
	maybeCut bool     // a connection that closes is no fault
	half     bool     // the client closes its half, and still reads
	taken    func()   // is called if the order was
}

func (q *request) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "kind %s, wants %v\n%s %s\n", q.kind, q.want, q.method, q.path)
	_ = q.header.Write(&b)
	fmt.Fprintf(&b, "\n%.300q, %d bytes, chunked: %t", q.body, len(q.body), q.chunked)
	return b.String()
}

// generator draws requests. It goes through the service as a request does: what refuses
// first decides.
type generator struct {
	rng    *rand.Rand
	keys   *keyring
	n      int
	orders map[*caller]string // the last client_id that was taken
}

func pick[T any](g *generator, all ...T) T { return all[g.rng.IntN(len(all))] }

func (g *generator) one(in int) bool { return g.rng.IntN(in) == 0 }

// next is any request.
func (g *generator) next() *request {
	switch n := g.rng.IntN(100); {
	case n < 4:
		q := g.request("health", "GET", "/healthz")
		q.want, q.right = []outcome{{200, "", false}}, isData(`{"status":"up"}`)
		g.method(q)
		return q
	case n < 5 && g.one(2):
		q := g.request("usage", "GET", "/v1/usage")
		q.right = isUsage
		return g.keyed(q, "", "", outcome{200, "", true})
	case n < 5:
		q := g.request("contract", "GET", "/")
		q.header.Set("Accept", "application/json")
		q.want, q.right, q.varies = []outcome{{200, "", false}}, isContract, true
		return q
	case n < 9:
		path := pick(g, "/v0", "/v1", "/v1/prices/", "/v2/prices/btc-usd", "/healthz/x", "/v1/orders/1", "/favicon.ico", "/%00", "/v1/prices/btc-usd/x")
		q := g.request("no route", pick(g, "GET", "POST", "DELETE", "BREW"), path)
		q.want = []outcome{{404, "not_found", false}}
		return q
	case n < 50:
		return g.price()
	case n < 60:
		return g.history()
	case n < 88:
		return g.order()
	case n < 91:
		d := pick(g, "20ms", "50ms", "150ms", "0s", "nonsense", "-1s", "11s", "")
		q := g.request("slow", "GET", "/v1/slow?d="+d)
		if d == "nonsense" || d == "-1s" || d == "11s" || d == "" {
			return g.keyed(q, "", "", outcome{400, "bad_request", true})
		}
		q.right = isData(`{"slept":"` + d + `"}`)
		return g.keyed(q, "", "", outcome{200, "", true})
	case n < 92:
		return g.keyed(g.request("overrun", "GET", "/v1/slow?d=1500ms"), "", "", outcome{503, "handler_timeout", true})
	case n < 95:
		return g.keyed(g.request("panic", "GET", "/v1/panic"), "", "", outcome{500, "internal", true})
	case n < 98:
		return g.keyed(g.request("upstream refused", "GET", "/v1/upstream?as=refused"), "", "", outcome{502, "bad_gateway", true})
	case n < 99:
		return g.keyed(g.request("upstream slow", "GET", "/v1/upstream?as=slow"), "", "", outcome{504, "gateway_timeout", true})
	default:
		return g.keyed(g.request("upstream", "GET", "/v1/upstream"), "", "", outcome{400, "bad_request", true})
	}
}

// request has what any request may have: an id and an Accept.
func (g *generator) request(kind, method, path string) *request {
	g.n++
	q := &request{kind: kind, method: method, path: path, header: http.Header{}, keys: g.keys, right: isEmpty}
	switch g.rng.IntN(4) {
	case 0:
		q.id = fmt.Sprintf("soak-%x.%d", g.rng.Uint64(), g.n)
		q.header.Set("X-Request-Id", q.id)
	case 1:
		q.header.Set("X-Request-Id", pick(g, "has a space", strings.Repeat("x", 129), "a,b", "\xff", `"quoted"`))
	}
	if g.one(3) {
		g.accept(q)
	}
	return q
}

// accepts are values of Accept, with what the prices are sent in; empty: 406.
var accepts = []struct {
	lines   []string
	price   string
	problem bool
}{
	{[]string{"application/json"}, "application/json", false},
	{[]string{"text/csv"}, "text/csv", false},
	{[]string{"*/*"}, "application/json", false},
	{[]string{"text/*"}, "text/csv", false},
	{[]string{"application/json;q=0, */*"}, "text/csv", false},
	{[]string{"application/json;q=0.5, TEXT/csv;Q=0.9"}, "text/csv", false},
	{[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, "application/json", false},
	{[]string{"image/png", "text/csv"}, "text/csv", false},
	{[]string{`text/csv;header="a,b", application/json`}, "application/json", false},
	{[]string{";;,,/,q"}, "application/json", false},
	{[]string{""}, "application/json", false},
	{[]string{"image/png"}, "", false},
	{[]string{"text/csv;q=0, application/json;q=0, */*"}, "", false},
	{[]string{"application/problem+json"}, "", true},
	{[]string{"application/problem+json, application/json;q=0.5"}, "application/json", true},
	{[]string{"application/json, application/problem+json;q=0.9"}, "application/json", false},
}

// accept sets Accept, and returns in what the prices are sent.
func (g *generator) accept(q *request) string {
	a := pick(g, accepts...)
	q.header["Accept"] = a.lines
	q.problem = a.problem
	return a.price
}

func (g *generator) price() *request {
	pair := pick(g, "btc-usd", "btc-usd", "eth-usd", "doge-usd", "BTC-USD")
	q := g.request("price", "GET", "/v1/prices/"+pair)
	q.header.Del("Accept")
	q.problem, q.varies = false, true
	sends := "application/json"
	if g.one(2) {
		sends = g.accept(q)
	}
	if g.one(20) { // nobody looks at it
		q.body = []byte(strings.Repeat("x", g.rng.IntN(1000)))
	}
	done := outcome{200, "", true}
	switch {
	case sends == "":
		done = outcome{406, "not_acceptable", true}
	case pair != "btc-usd" && pair != "eth-usd":
		done = outcome{404, "not_found", true}
	}
	q.right = isPrice(pair, sends)
	return g.keyed(q, "", "", done)
}

func (g *generator) history() *request {
	pair := pick(g, "btc-usd", "eth-usd", "doge-usd")
	q := g.request("history", "GET", "/v1/history/"+pair)
	done := outcome{200, "", true}
	if pair == "doge-usd" {
		done = outcome{404, "not_found", true}
	}
	q.right = isHistory(pair)
	return g.keyed(q, "pro", "", done)
}

// order is a new order, or one that is wrong somewhere.
func (g *generator) order() *request {
	q := g.request("order", "POST", "/v1/orders")
	id := fmt.Sprintf("%012x", g.rng.Uint64()>>16)
	pair, side, quantity := pick(g, "btc-usd", "eth-usd"), pick(g, "buy", "sell"), pick(g, "1", "0.5", "123456789012.12345678")
	right := fmt.Sprintf(`{"pair":%q,"side":%q,"quantity":%q,"client_id":%q}`, pair, side, quantity, id)
	q.body = []byte(right)
	q.chunked = g.one(4)
	q.right = isData(right)
	created := outcome{201, "", true}
	want, sure := []outcome{created}, true
	bad, invalid, large := outcome{400, "bad_request", true}, outcome{422, "unprocessable", true}, outcome{413, "body_too_large", true}
	wrong := func(o outcome, body string, paths ...string) {
		want, q.body, q.paths = []outcome{o}, []byte(body), paths
	}

	if g.one(2) {
		switch g.rng.IntN(16) {
		case 0:
			wrong(bad, pick(g, "{", "nonsense", right[:len(right)-1], right+right, right+"x", "\xff", `{"pair":}`, " "))
		case 1:
			wrong(bad, "")
			q.chunked = false
		case 2:
			wrong(invalid, strings.Replace(right, `"side"`, `"sight"`, 1), "sight")
		case 3:
			wrong(invalid, fmt.Sprintf(`{"pair":%q,"side":%q,"quantity":7,"client_id":%q}`, pair, side, id), "quantity")
		case 4:
			wrong(invalid, `{"pair":"doge-usd","side":"hold","quantity":"0.0","client_id":"a b"}`, "pair", "side", "quantity", "client_id")
		case 5:
			wrong(invalid, pick(g, "[]", "7", `"text"`, "[{}]"))
		case 6:
			wrong(large, fmt.Sprintf(`{"pair":"%s"}`, strings.Repeat("x", 64<<10+g.rng.IntN(400<<10))))
		case 7: // just at the bound
			space := strings.Repeat(" ", 64<<10-len(right))
			if q.body = []byte(right + space); g.one(2) {
				wrong(large, right+space+" ")
			}
		case 8, 9, 10: // a byte is another
			q.body[g.rng.IntN(len(q.body))] = byte(g.rng.IntN(256))
			want = []outcome{created, bad, invalid, {409, "conflict", true}}
			q.right, sure = isOrder, false
		}
	}
	if len(q.body) > 0 {
		q.header.Set("Content-Type", pick(g, "application/json", "application/json; charset=utf-8", "application/JSON;charset=UTF-8", `application/json; charset="utf-8"; x=1`))
		if g.one(6) {
			unsupported := outcome{415, "unsupported_media_type", true}
			switch g.rng.IntN(4) {
			case 0:
				q.header["Content-Type"] = []string{"application/json", "application/json"}
				want = []outcome{bad}
			case 1:
				q.header.Set("Content-Encoding", pick(g, "gzip", "br, identity"))
				q.encoded = true
				want = []outcome{unsupported}
			default:
				q.header["Content-Type"] = pick(g, nil, []string{"text/plain"}, []string{"application/*"}, []string{"application/json; charset=latin1"},
					[]string{"application/json; a=1; a=2"}, []string{"application"}, []string{""}, []string{"application/vnd.order+json"})
				want = []outcome{unsupported}
			}
			q.paths = nil
		}
	}
	q = g.keyed(q, "", "orders:write", want...)
	repeats := g.one(4) // drawn also where there is nothing yet to repeat
	if last := g.orders[q.caller]; last != "" && sure && repeats {
		q.body = bytes.Replace(q.body, []byte(id), []byte(last), 1)
		if i := slices.Index(q.want, created); i >= 0 {
			q.want[i] = outcome{409, "conflict", true}
		}
	}
	if q.caller != nil && sure {
		q.taken = func() { g.orders[q.caller] = id }
	}
	return q
}

// keyed completes a request to a route that needs a key, and maybe a plan or a scope.
func (g *generator) keyed(q *request, plan, scope string, done ...outcome) *request {
	if g.method(q) {
		return q
	}
	if g.one(6) {
		g.strange(q)
		return q
	}
	c := pick(g, g.keys.fixed...)
	if scope != "" && g.one(2) {
		c = pick(g, g.keys.fixed[4], g.keys.fixed[5])
	}
	if g.one(5) {
		c = g.keys.anyRotating(g.rng)
	}
	g.as(q, c)
	switch {
	case scope != "" && !slices.Contains(c.key.Scopes, scope):
		q.want = []outcome{{403, "scope_required", false}}
	case plan != "" && c.key.Plan != plan:
		q.want = []outcome{{402, "plan_required", false}}
	default:
		q.want = append(done, outcome{429, "rate_limited", true})
		if quota := quotaOf(c.key); quota != nil && !quota.Soft && q.kind != "usage" {
			q.want = append(q.want, outcome{429, "quota_exceeded", true})
		}
	}
	return q
}

// method may take another method, and reports whether that decides.
func (g *generator) method(q *request) bool {
	q.allow = "GET, HEAD, OPTIONS"
	if q.method == "POST" {
		q.allow = "POST, OPTIONS"
	}
	switch n := g.rng.IntN(20); {
	case n == 0 && q.method == "GET":
		q.method = "HEAD"
	case n == 1:
		q.method = pick(g, "DELETE", "PUT", "PATCH", "OPTIONS", "BREW", "get", "PROPFIND")
		switch q.method {
		case "OPTIONS":
			q.want, q.right = []outcome{{204, "", false}}, isEmpty
		case "BREW", "get":
			q.want = []outcome{{501, "not_implemented", false}}
		default:
			q.want = []outcome{{405, "method_not_allowed", false}}
		}
		if g.one(2) {
			q.header.Set("X-API-Key", g.keys.lone.token) // is not looked at
		}
		return true
	}
	return false
}

// as gives the request a key, in one of the two ways.
func (g *generator) as(q *request, c *caller) {
	q.caller = c
	if g.one(2) {
		q.header.Set("X-API-Key", c.token)
	} else {
		q.header.Set("Authorization", pick(g, "Bearer ", "bearer ", "BEARER  ")+c.token)
	}
}

// strange gives it anything but one key.
func (g *generator) strange(q *request) {
	known := pick(g, g.keys.fixed...).token
	q.want = []outcome{{401, "key_invalid", false}}
	switch g.rng.IntN(8) {
	case 0, 1:
		q.bare, q.want = true, []outcome{{401, "key_missing", false}}
		if g.one(2) {
			q.header.Set(pick(g, "X-API-Key", "Authorization"), pick(g, "", " ", "Basic czNjcmV0OnMzY3JldA==", "Bearer ", "Bearer"))
			if strings.TrimSpace(q.header.Get("X-Api-Key")) != "" || strings.HasPrefix(q.header.Get("Authorization"), "Bearer") {
				q.bare, q.want = false, []outcome{{401, "key_invalid", false}}
			}
		}
	case 2:
		q.two, q.want = true, []outcome{{400, "bad_request", false}}
		q.header.Set("X-API-Key", known)
		q.header.Set("Authorization", "Bearer "+known)
	case 3:
		q.two, q.want = true, []outcome{{400, "bad_request", false}}
		q.header["X-Api-Key"] = []string{known, known}
	case 4: // the right prefix, a wrong checksum
		q.header.Set("X-API-Key", known[:len(known)-1]+pick(g, "!", "_", string(known[len(known)-1]^1)))
	case 5:
		q.header.Set("Authorization", "Bearer s3cret"+strings.Repeat("x", pick(g, 0, 1, 100, 4<<10, 10<<10)))
	case 6:
		q.header.Set("X-API-Key", newCaller("", "pro").token) // well made
	default:
		q.header.Set("X-API-Key", fmt.Sprintf("s3cret-%x", g.rng.Uint64()))
	}
}

// What follows says whether a body is right for a route.

func isEmpty(a *answer) error {
	if len(a.body) > 0 {
		return errors.New("there is a body where none is expected")
	}
	return nil
}

func isData(data string) func(*answer) error {
	return func(a *answer) error {
		if want := `{"result":"success","data":` + data + "}\n"; string(a.body) != want {
			return fmt.Errorf("the body is %.200q, not %.200q", a.body, want)
		}
		return isType(a, "application/json")
	}
}

func isType(a *answer, contentType string) error {
	if got := a.header["Content-Type"]; !slices.Equal(got, []string{contentType}) {
		return fmt.Errorf("Content-Type is %q, not %s", got, contentType)
	}
	return nil
}

// data parses the envelope of a success.
func data[T any](a *answer) (T, error) {
	var e struct {
		Result string `json:"result"`
		Data   T      `json:"data"`
	}
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e.Data, err
	}
	if _, err := dec.Token(); err != io.EOF || e.Result != "success" {
		return e.Data, errors.New("the body is not the envelope of a success")
	}
	return e.Data, isType(a, "application/json")
}

type quote struct {
	Pair, Bid, Ask string
	At             time.Time
}

var prices = map[string][2]string{"btc-usd": {"64250.10", "64251.40"}, "eth-usd": {"3120.55", "3120.95"}}

func (q quote) right(pair string) error {
	if q.Pair != pair || [2]string{q.Bid, q.Ask} != prices[pair] {
		return fmt.Errorf("the quote %v is not that of %s", q, pair)
	}
	return nil
}

var csv = regexp.MustCompile(`^pair,bid,ask,at\r\n([a-z-]+),([0-9.]+),([0-9.]+),([0-9T:-]+Z)\r\n$`)

func isPrice(pair, contentType string) func(*answer) error {
	return func(a *answer) error {
		var q quote
		if contentType == "text/csv" {
			m := csv.FindSubmatch(a.body)
			if m == nil {
				return fmt.Errorf("the body is %q", a.body)
			}
			at, err := time.Parse(time.RFC3339, string(m[4]))
			if err == nil {
				err = isType(a, "text/csv; charset=utf-8; header=present")
			}
			if err != nil {
				return err
			}
			q = quote{string(m[1]), string(m[2]), string(m[3]), at}
		} else {
			var err error
			if q, err = data[quote](a); err != nil {
				return err
			}
		}
		if q.At.Before(a.sent.Add(-2*time.Second)) || q.At.After(a.received) {
			return fmt.Errorf("the quote is of %v", q.At)
		}
		return q.right(pair)
	}
}

func isHistory(pair string) func(*answer) error {
	return func(a *answer) error {
		days, err := data[[]quote](a)
		if err == nil && len(days) != 7 {
			err = fmt.Errorf("there are %d days", len(days))
		}
		for _, day := range days {
			err = errors.Join(err, day.right(pair))
		}
		return err
	}
}

// isUsage wants what is left and what is used to be the quota.
func isUsage(a *answer) error {
	usage, err := data[struct{ Quotas []admit.QuotaUsage }](a)
	for _, q := range usage.Quotas {
		if q.Name != "month" || q.Used < 0 || q.Used <= q.Limit && q.Used+q.Remaining != q.Limit || q.Used > q.Limit && q.Remaining != 0 {
			err = errors.Join(err, fmt.Errorf("the usage is %+v", q))
		}
	}
	return err
}

func isOrder(a *answer) error {
	_, err := data[map[string]string](a)
	return err
}

// isContract wants the page of the example's contract, as JSON.
func isContract(a *answer) error {
	var page struct {
		Result string
		Data   struct {
			Title  string
			Routes []struct{}
		}
	}
	err := json.Unmarshal(a.body, &page)
	if err == nil && (page.Result != "success" || page.Data.Title != "Market data" || len(page.Data.Routes) == 0) {
		err = fmt.Errorf("the contract is %+v", page)
	}
	return errors.Join(err, isType(a, "application/json"))
}
