package admit_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/admit-go/admit"
)

// The errors of the mux itself become the envelope. What a handler writes is left alone.
func ExampleMux() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{id}", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no item "+r.PathValue("id"), http.StatusNotFound)
	})
	h := admit.Mux(mux)

	show(h, "GET", "/items/7")
	show(h, "PUT", "/items/7")
	show(h, "GET", "/nowhere")
	// Output:
	// 404 no item 7
	// 405 {"result":"error","message":"The resource does not support this method.","code":"method_not_allowed"}
	// 404 {"result":"error","message":"There is no such resource.","code":"not_found"}
}

func ExampleSuccess() {
	h := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		switch r.Method {
		case http.MethodPost:
			w.Header().Set("Location", "/orders/7")
			return admit.Success(w, r, http.StatusCreated, map[string]any{"id": 7})
		case http.MethodDelete:
			return admit.Success(w, r, http.StatusNoContent, nil) // without a body
		default:
			return admit.Success(w, r, http.StatusOK, []string{"order 7"})
		}
	})
	show(h, "POST", "/orders")
	show(h, "GET", "/orders")
	show(h, "DELETE", "/orders/7")
	// Output:
	// 201 {"result":"success","data":{"id":7}}
	// 200 {"result":"success","data":["order 7"]}
	// 204
}

// A form with a file. The errors of ParseForm and FormFile can be returned as they are.
func ExampleParseForm() {
	upload := admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if err := admit.ParseForm(r, 1<<20); err != nil {
			return err
		}
		file, header, err := r.FormFile("report")
		if err != nil {
			return err
		}
		defer file.Close()
		size, err := io.Copy(io.Discard, file)
		if err != nil {
			return err
		}
		return admit.Success(w, r, http.StatusCreated, fmt.Sprintf("%s: %d bytes for %s", header.Filename, size, r.PostForm.Get("account")))
	})
	h := admit.MaxBody(16 << 20)(upload)

	form := func(name string) string {
		return strings.ReplaceAll(`--b
Content-Disposition: form-data; name="account"

acme
--b
Content-Disposition: form-data; name="`+name+`"; filename="q3.csv"

a,b
--b--
`, "\n", "\r\n")
	}
	const multipart = "multipart/form-data; boundary=b"
	showBody(h, "POST", "/", form("report"), "Content-Type", multipart)
	showBody(h, "POST", "/", form("other"), "Content-Type", multipart)
	showBody(h, "POST", "/", form("report")[:60], "Content-Type", multipart)
	showBody(h, "POST", "/", `{}`, "Content-Type", "application/json")
	// Output:
	// 201 {"result":"success","data":"q3.csv: 3 bytes for acme"}
	// 400 {"result":"error","message":"The form does not have the file that this request needs.","code":"bad_request"}
	// 400 {"result":"error","message":"The request body is not a well-formed form.","code":"bad_request"}
	// 415 {"result":"error","message":"The resource does not accept this content type; send one of: application/x-www-form-urlencoded, multipart/form-data.","code":"unsupported_media_type"}
}

// The client gets its response when the time is over, and the context of the handler ends.
func ExampleTimeout() {
	h := admit.Timeout(10 * time.Millisecond)(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/slow" {
			<-r.Context().Done() // as a query to a database does
			return r.Context().Err()
		}
		return admit.Success(w, r, http.StatusOK, "in time")
	}))
	show(h, "GET", "/slow")
	// Output:
	// 503 {"result":"error","message":"The response took too long. Try again later.","code":"handler_timeout"}
}

// A client announces a body and does not send it.
func ExampleBodyTimeout() {
	bounds := admit.BodyTimeout{
		Grace:   50 * time.Millisecond, // how long a Read may wait; 5s in a service
		Max:     30 * time.Second,
		MinRate: 1 << 10,
	}
	s := httptest.NewServer(bounds.Wrap(admit.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		order, err := admit.Decode[map[string]any](r)
		if err != nil {
			return err
		}
		return admit.Success(w, r, http.StatusCreated, order)
	})))
	defer s.Close()

	stalled, client := io.Pipe()
	defer client.Close()
	res, err := http.Post(s.URL, "application/json", stalled)
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(res.StatusCode, strings.TrimSpace(string(body)))
	// Output:
	// 408 {"result":"error","message":"The request did not arrive in time.","code":"request_timeout"}
}

// The errors of a reverse proxy become the envelope. They are logged, and have codes of their
// own.
func ExampleProxyError() {
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	target, err := url.Parse(upstream.URL)
	if err != nil {
		panic(err)
	}
	upstream.Close() // the upstream is down

	proxy := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorHandler: admit.ProxyError,
	}
	ew := &admit.ErrorWriter{
		Logger:  slog.New(slog.DiscardHandler),
		Observe: func(_ *http.Request, e *admit.Error) { fmt.Println("counted:", e.Code) },
	}
	show(ew.Wrap(proxy), "GET", "/")
	// Output:
	// counted: bad_gateway
	// 502 {"result":"error","message":"An upstream service failed.","code":"bad_gateway"}
}
