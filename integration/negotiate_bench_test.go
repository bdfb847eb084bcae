package integration

import (
	"fmt"
	"mime"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/elnormous/contenttype"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/golang/gddo/httputil"
	"github.com/gorilla/handlers"
	"github.com/munnerz/goautoneg"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
)

// BenchmarkAccept compares decisions, each made for a whole request as its library
// means it, with three offers. The handlers do nothing but decide; admit's, as
// "admit, wrapped", is the whole wrapper with Vary and the request's context.
func BenchmarkAccept(b *testing.B) {
	offers := []string{"application/json", "text/csv", "text/html"}
	var types []contenttype.MediaType
	for _, offer := range offers {
		types = append(types, contenttype.NewMediaType(offer))
	}
	negotiator, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: offers})
	require.NoError(b, err)
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

	libraries := []struct {
		name   string
		decide http.HandlerFunc
	}{
		{"admit", func(_ http.ResponseWriter, r *http.Request) { negotiator.Negotiate(r.Header["Accept"]) }},
		{"admit, wrapped", admit.Accept(offers...)(nothing).ServeHTTP},
		{"admit, offers parsed each time", func(_ http.ResponseWriter, r *http.Request) {
			admit.Negotiate(r.Header["Accept"], offers...)
		}},
		{"gddo", func(_ http.ResponseWriter, r *http.Request) { httputil.NegotiateContentType(r, offers, "") }},
		{"elnormous", func(_ http.ResponseWriter, r *http.Request) {
			_, _, _ = contenttype.GetAcceptableMediaType(r, types)
		}},
		{"goautoneg", func(_ http.ResponseWriter, r *http.Request) {
			goautoneg.Negotiate(r.Header.Get("Accept"), offers)
		}},
	}
	headers := []struct{ name, value string }{
		{"one", "application/json"},
		{"any", "*/*"},
		{"chrome", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"},
		{"ten", "text/plain, application/xhtml+xml, application/xml;q=0.9, image/avif, image/webp, image/apng;q=0.8, text/html;q=0.7, text/csv;q=0.6, application/json;q=0.5, */*;q=0.1"},
		{"ten with parameters", "text/plain;format=flowed, application/xhtml+xml;v=1, application/xml;v=2;q=0.9, image/avif;a=b, image/webp;a=b, image/apng;a=b;q=0.8, text/html;level=1;q=0.7, text/csv;header=present;q=0.6, application/json;q=0.5, */*;q=0.1"},
		{"none matches", "application/msgpack"},
	}
	for _, header := range headers {
		for _, library := range libraries {
			b.Run(header.name+"/"+library.name, func(b *testing.B) {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.Header.Set("Accept", header.value)
				r.Header.Set("User-Agent", "benchmark")
				w := silent{header: make(http.Header, 8)}
				b.ReportAllocs()
				for b.Loop() {
					clear(w.header)
					library.decide(w, r)
				}
			})
		}
	}
}

// BenchmarkAcceptGrowth shows that time grows with the ranges and with the offers, and
// not faster.
func BenchmarkAcceptGrowth(b *testing.B) {
	for _, ranges := range []int{10, 1_000, 10_000} {
		accept := []string{strings.Repeat("application/vnd.example.v1+json;q=0.5, ", ranges-1) + "*/*;q=0.1"}
		for _, count := range []int{1, 3, 16, 32} {
			var offers []string
			for i := range count {
				offers = append(offers, fmt.Sprintf("application/vnd.example.v%d+xml", i))
			}
			n, err := admit.NewNegotiator(admit.NegotiatorConfig{Offers: offers})
			require.NoError(b, err)
			b.Run(fmt.Sprintf("%d ranges/%d offers", ranges, count), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					n.Negotiate(accept)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(ranges), "ns/range")
			})
		}
	}
}

// BenchmarkContentType compares wrappers around a handler that does nothing, and
// the standard library's parser alone.
func BenchmarkContentType(b *testing.B) {
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	libraries := []struct {
		name string
		h    http.Handler
	}{
		{"admit", admit.ContentType("application/json")(nothing)},
		{"chi", middleware.AllowContentType("application/json")(nothing)},
		{"gorilla", handlers.ContentTypeHandler(nothing, "application/json")},
		{"mime.ParseMediaType", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _, _ = mime.ParseMediaType(r.Header.Get("Content-Type"))
		})},
	}
	for _, contentType := range []string{
		"application/json", "application/json; charset=utf-8", "text/xml",
	} {
		for _, library := range libraries {
			b.Run(contentType+"/"+library.name, func(b *testing.B) {
				r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{}`))
				r.Header.Set("Content-Type", contentType)
				r.Header.Set("User-Agent", "benchmark")
				w := silent{header: make(http.Header, 8)}
				b.ReportAllocs()
				for b.Loop() {
					library.h.ServeHTTP(w, r)
				}
			})
		}
	}
}

// silent is a response writer that allocates nothing.
type silent struct{ header http.Header }

func (w silent) Header() http.Header         { return w.header }
func (w silent) Write(p []byte) (int, error) { return len(p), nil }
func (w silent) WriteHeader(int)             {}
