package contract_test

import (
	"bytes"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

// hostile is a text that is markup wherever it may stand.
const hostile = "a|b `c` <script>alert(1)</script> \"d\" 'e' [f](javascript:g) *h* \\ &amp; {{.}} \r\n\n# i\n| j |"

// newFull is a contract with something everywhere.
func newFull(t testing.TB, text string) *contract.API {
	t.Helper()
	plans, err := admit.NewPlans(
		admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5)}, Quotas: []admit.Quota{{Requests: 10_000, Every: admit.Month}}},
		admit.Plan{
			Name: text, Includes: "free", Features: []string{text}, UpgradeURL: "https://example.com/pro",
			Quotas: []admit.Quota{{Name: "a|b", Requests: 1, Every: admit.Day, Soft: true}},
		},
	)
	require.NoError(t, err)
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerMinute(1)}})
	require.NoError(t, err)
	quotas, err := admit.NewQuotas(admit.QuotasConfig{Plans: plans, Store: admit.NewMemoryQuotaStore()})
	require.NoError(t, err)
	auth, err := admit.NewAuth(admit.AuthConfig{
		Store:   admit.KeyMap{},
		Sources: []admit.KeySource{admit.FromBearer(), admit.FromHeader("X-API-Key"), admit.FromQuery("key"), admit.FromCookie("key"), admit.FromAuthorization("Token")},
	})
	require.NoError(t, err)
	api, err := contract.New(contract.Info{
		Title: "T " + text, Version: "V " + text, Description: text, Servers: []string{"https://api.example.com/base/"},
	}, admit.Policy{})
	require.NoError(t, err)
	api.Declare("POST /v1/orders/{id}/{rest...}", admit.Policy{
		Auth: auth, Plans: plans, AtLeast: text, Limiter: limiter, Quotas: quotas, Scopes: []string{"a<b"}, ContentType: []string{"application/json"}, MaxBody: 100,
		Timeout: time.Minute,
	}, &admit.Error{Status: 409, Code: "sold_out", Message: text}, contract.Foreign(502, text))
	api.Declare("/healthz", admit.Policy{Accept: []string{"application/json"}})
	return api
}

func show(t testing.TB, api *contract.API, method, accept string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	api.Page().ServeHTTP(w, r)
	return w
}

const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

func TestPage(t *testing.T) {
	t.Parallel()
	api := newFull(t, "plain")
	for accept, want := range map[string]string{
		browser: "text/html; charset=utf-8", "*/*": "text/markdown; charset=utf-8", "": "text/markdown; charset=utf-8",
		"application/json": "application/json", "image/png": "text/markdown; charset=utf-8",
	} {
		w := show(t, api, "GET", accept)
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, want, w.Header().Get("Content-Type"), accept)
		assert.Equal(t, "Accept", w.Header().Get("Vary"))
		assert.NotEmpty(t, w.Body.String())

		head := show(t, api, "HEAD", accept)
		assert.Empty(t, head.Body.String())
		for name, values := range w.Header() {
			assert.Equal(t, values, head.Header()[name], name)
		}
		for _, known := range []string{w.Header().Get("ETag"), `"x", W/` + w.Header().Get("ETag"), "*"} {
			again := show(t, api, "GET", accept, "If-None-Match", known)
			assert.Equal(t, 304, again.Code, known)
			assert.Empty(t, again.Body.String())
		}
		assert.Equal(t, 200, show(t, api, "GET", accept, "If-None-Match", `"x"`).Code)
	}
	other := show(t, api, "POST", "")
	assert.Equal(t, 405, other.Code)
	assert.Equal(t, "GET, HEAD", other.Header().Get("Allow"))

	before := show(t, api, "GET", browser)
	api.Declare("/later", admit.Policy{})
	after := show(t, api, "GET", browser)
	assert.NotEqual(t, before.Header().Get("ETag"), after.Header().Get("ETag"))
	assert.NotContains(t, before.Body.String(), "/later")
	assert.Contains(t, after.Body.String(), "/later")
}

// What comes from the service is text, wherever it stands.
func TestPageEscapes(t *testing.T) {
	t.Parallel()
	w := show(t, newFull(t, hostile), "GET", browser)
	page := w.Body.String()
	assert.NotContains(t, page, "<script")
	assert.NotRegexp(t, `href="\s*javascript`, page)
	assert.Contains(t, page, html.EscapeString("a|b `c` <script>alert(1)</script>")[:10])
	assert.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
	assert.NotContains(t, w.Header().Get("Content-Security-Policy"), "unsafe")

	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		assert.False(t, ids[m[1]], "%s is there twice", m[1])
		ids[m[1]] = true
	}
	for _, m := range regexp.MustCompile(` (?:href="#|aria-labelledby=")([^"]*)"`).FindAllStringSubmatch(page, -1) {
		assert.True(t, ids[m[1]], "%s is not there", m[1])
	}
}

// Each row of a table has as many cells as its head, and no line is one of the service's.
func TestMarkdownIsATableWhateverTheTexts(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"plain", hostile, "`", "``", "|", `\`, `\|`, "a\u2028b"} {
		assertTables(t, newFull(t, text).Markdown())
	}
}

func assertTables(t testing.TB, markdown []byte) {
	t.Helper()
	cells, fenced := 0, ""
	for _, line := range strings.Split(string(markdown), "\n") {
		switch {
		case fenced != "":
			if line == fenced {
				fenced = ""
			}
		case strings.HasPrefix(line, "```"):
			fenced = strings.TrimSuffix(line, "text")
		case strings.HasPrefix(line, "|"):
			n := strings.Count(line, "|")
			if cells != 0 {
				require.Equal(t, cells, n, line)
			}
			cells = n
		default:
			cells = 0
			require.False(t, strings.HasPrefix(line, "# i"), line)
		}
	}
	require.Empty(t, fenced)
}

func FuzzMarkdown(f *testing.F) {
	f.Add(hostile)
	f.Add("```")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.TrimSpace(text) == "" || text == "free" {
			return
		}
		api := newFull(t, text)
		assertTables(t, api.Markdown())
		assert.NotContains(t, show(t, api, "GET", browser).Body.String(), "<script")
	})
}

func TestJSON(t *testing.T) {
	t.Parallel()
	w := show(t, newFull(t, hostile), "GET", "application/json")
	var got struct {
		Result string `json:"result"`
		Data   struct {
			Title    string                          `json:"title"`
			Auth     []struct{ ID, Name, In string } `json:"authentication"`
			Statuses []struct {
				Status int `json:"status"`
				Codes  []struct {
					Code    string `json:"code"`
					Retry   string `json:"retry"`
					Routes  []string
					Reasons []struct{ When, Message string }
				} `json:"codes"`
			} `json:"statuses"`
			Routes []struct{ Pattern, Curl string } `json:"routes"`
		} `json:"data"`
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	assert.Equal(t, "success", got.Result)
	assert.Equal(t, "T "+hostile, got.Data.Title)
	require.Len(t, got.Data.Auth, 5)
	assert.Equal(t, "header_x_api_key", got.Data.Auth[3].ID)
	assert.Equal(t, "X-Api-Key", got.Data.Auth[3].Name)
	for _, s := range got.Data.Statuses {
		for _, c := range s.Codes {
			assert.NotEmpty(t, c.Retry)
			assert.NotEmpty(t, c.Reasons)
		}
	}
	assert.Len(t, got.Data.Routes, 2)
}

// Where an Auth that is optional stands around an Identity, a key will do as well.
func TestKeyOrIdentity(t *testing.T) {
	t.Parallel()
	auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{}, Optional: true, Sources: []admit.KeySource{admit.FromHeader("X-API-Key")}})
	require.NoError(t, err)
	api, err := contract.New(contract.Info{
		Title: "x", Version: "1", SecuritySchemes: map[string]contract.SecurityScheme{"jwt": {Type: "http", Scheme: "bearer"}},
	}, admit.Policy{Auth: auth})
	require.NoError(t, err)
	api.Declare("/x", admit.Policy{Identity: func(next http.Handler) http.Handler { return next }})
	assert.Contains(t, string(api.Markdown()), "- Authentication: header\\_x\\_api\\_key or jwt\n")
	doc, err := api.OpenAPI(contract.OpenAPI31)
	require.NoError(t, err)
	var got struct {
		Paths map[string]map[string]struct{ Security []map[string][]string }
	}
	require.NoError(t, json.Unmarshal(doc, &got))
	assert.Equal(t, []map[string][]string{{"header_x_api_key": {}}, {"jwt": {}}}, got.Paths["/x"]["get"].Security)
}

// A line for curl is one command to a shell, with the words that are meant.
func TestCurlLines(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	words := func(line string) []string {
		rest, ok := strings.CutPrefix(line, "curl ")
		require.True(t, ok)
		c := exec.Command(sh, "-c", `printf '%s\n' `+rest)
		c.Env = []string{"KEY=the key"}
		out, err := c.Output()
		require.NoError(t, err, line)
		return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	}
	curl := func(source admit.KeySource, pattern string, p admit.Policy) []string {
		auth, err := admit.NewAuth(admit.AuthConfig{Store: admit.KeyMap{}, Sources: []admit.KeySource{source}})
		require.NoError(t, err)
		api, err := contract.New(contract.Info{Title: "x", Version: "1", Servers: []string{"https://example.com/api"}}, admit.Policy{})
		require.NoError(t, err)
		p.Auth = auth
		api.Declare(pattern, p)
		var got struct {
			Data struct{ Routes []struct{ Curl string } }
		}
		require.NoError(t, json.NewDecoder(io.Reader(bytes.NewReader(show(t, api, "GET", "application/json").Body.Bytes()))).Decode(&got))
		return words(got.Data.Routes[0].Curl)
	}
	assert.Equal(t, []string{"-i", "-H", "Authorization: Bearer the key", "https://example.com/api/x/ID"},
		curl(admit.FromBearer(), "/x/{id}", admit.Policy{}))
	assert.Equal(t, []string{"-i", "-H", "Authorization: Token the key", "-H", "Content-Type: application/json", "-d", "@body", "https://example.com/api/x/REST"},
		curl(admit.FromAuthorization("Token"), "POST /x/{rest...}", admit.Policy{ContentType: []string{"application/json"}}))
	assert.Equal(t, []string{"-i", "-X", "DELETE", "-H", "X-It's: the key", "-H", "Accept: text/csv; header=present", "https://other.example/api/x/"},
		curl(admit.FromHeader("X-It's"), "DELETE other.example/x/{$}", admit.Policy{Accept: []string{"text/csv; header=present"}}))
	assert.Equal(t, []string{"-i", "https://example.com/api/it%27s?%24k=the key"}, curl(admit.FromQuery("$k"), "GET /it's", admit.Policy{}))
	assert.Equal(t, []string{"-i", "-I", "-b", "c=the key", "https://example.com/api/"}, curl(admit.FromCookie("c"), "HEAD /{$}", admit.Policy{}))
	for contentType, want := range map[string][]string{
		"multipart/form-data": {"-F", "file=@body"},
		"image/*":             {"-H", "Content-Type: image/TYPE", "--data-binary", "@body"},
		"text/csv":            {"-H", "Content-Type: text/csv", "--data-binary", "@body"},
	} {
		line := curl(admit.FromBearer(), "PUT /x", admit.Policy{ContentType: []string{contentType}})
		assert.Equal(t, want, line[5:len(line)-1])
	}
	assert.Equal(t, []string{"-i", "-b", "c=the key", "https://example.com/api/"}, curl(admit.FromCookie("c"), "GET /{$}", admit.Policy{}))
}

// A line that is said to be answered with a code is there only where admit does that.
func TestCurlLinesThatProvoke(t *testing.T) {
	t.Parallel()
	lines := func(api *contract.API) map[string]string {
		var got struct {
			Data struct {
				Statuses []struct{ Codes []struct{ Code, Curl string } }
			}
		}
		require.NoError(t, json.Unmarshal(show(t, api, "GET", "application/json").Body.Bytes(), &got))
		all := map[string]string{}
		for _, s := range got.Data.Statuses {
			for _, c := range s.Codes {
				all[c.Code] = c.Curl
			}
		}
		return all
	}
	own := newAPI(t, admit.Policy{})
	own.Declare("GET /x", admit.Policy{}, admit.NewError(406, ""), &admit.Error{Status: 401, Code: "key_missing"})
	all := lines(own)
	assert.Empty(t, all["not_acceptable"], "the handler decides")
	assert.Empty(t, all["key_missing"])
	assert.NotEmpty(t, all["not_found"])

	own.Declare("/{any}", admit.Policy{Auth: newAuth(t)})
	all = lines(own)
	assert.NotEmpty(t, all["key_missing"])
	assert.Empty(t, all["not_found"], "there is a route for every path")
}

// What the page says of all errors is true of each.
func TestPageIsTrue(t *testing.T) {
	t.Parallel()
	limiter, err := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(5)}, Cost: func(*http.Request) int { return 1 }})
	require.NoError(t, err)
	api := newAPI(t, admit.Policy{})
	api.Declare("/x", admit.Policy{Limiter: limiter, MaxBody: 1}, admit.NewError(501, ""), admit.NewError(507, ""),
		&admit.Error{Status: 503, Code: "busy", RetryAfter: time.Second})
	for _, form := range []string{string(api.Markdown()), show(t, api, "GET", browser).Body.String()} {
		assert.Contains(t, form, "Content Too Large", "as in its problem details")
		assert.Contains(t, form, "No: such a request is never admitted.", "though most that are rate_limited are, later")
		assert.Contains(t, form, "Yes, after Retry-After.")
		assert.NotContains(t, form, "momentary", "501 and 507 are not")
		assert.Contains(t, form, "Yes, after Retry-After, if the request is idempotent.", "the handler may have begun")
		assert.NotContains(t, form, "without a plan", "there are none")
		assert.Contains(t, form, "problem+json")
	}
	own := newAPI(t, admit.Policy{Errors: &admit.ErrorWriter{Encode: func(_ *http.Request, e *admit.Error) (string, []byte) { return "text/x-own", []byte(e.Code) }}})
	for _, form := range []string{string(own.Markdown()), show(t, own, "GET", browser).Body.String()} {
		assert.NotContains(t, form, "problem+json", "the service has bodies of its own")
		assert.NotContains(t, form, "request_id")
	}
}

// A Limiter that counts in a way of its own still has the limits of each plan.
func TestLimitsOfPlansWithCountBy(t *testing.T) {
	t.Parallel()
	plans, err := admit.NewPlans(admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5)}}, admit.Plan{Name: "pro", Limits: []admit.Limit{admit.PerSecond(50)}})
	require.NoError(t, err)
	for name, countBy := range map[string]func(*http.Request) string{"default": nil, "own": admit.Caller} {
		limiter, err := admit.NewLimiter(admit.LimiterConfig{Plans: plans, Limits: []admit.Limit{admit.PerSecond(1)}, CountBy: countBy})
		require.NoError(t, err)
		api := newAPI(t, admit.Policy{})
		api.Declare("/x", admit.Policy{Auth: newAuth(t), Plans: plans, Limiter: limiter})
		for _, form := range []string{string(api.Markdown()), show(t, api, "GET", browser).Body.String()} {
			assert.Contains(t, form, "each caller on the plan free", name)
			assert.Contains(t, form, "each caller on the plan pro", name)
			assert.Contains(t, form, "each caller without a plan that has limits", name)
		}
	}
}

// A Limiter without limits of plans has one row, whatever other Limiters have.
func TestLimitsOfLimitersWithAndWithoutPlans(t *testing.T) {
	t.Parallel()
	plans, err := admit.NewPlans(admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerSecond(5)}})
	require.NoError(t, err)
	api := newAPI(t, admit.Policy{})
	for route, c := range map[string]admit.LimiterConfig{"/a": {Plans: plans}, "/b": {}} {
		c.Limits = []admit.Limit{admit.PerSecond(2)}
		limiter, err := admit.NewLimiter(c)
		require.NoError(t, err)
		api.Declare(route, admit.Policy{Auth: newAuth(t), Limiter: limiter})
	}
	for _, row := range []string{
		"| each caller | `second` 2 per 1s |", "| each caller without a plan that has limits | `second` 2 per 1s |", "| each caller on the plan free | `second` 5 per 1s |",
	} {
		assert.Contains(t, string(api.Markdown()), row)
	}
}

func BenchmarkPage(b *testing.B) {
	api := newFull(b, "plain")
	h := api.Page()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept", browser)
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}
