package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/elnormous/contenttype"
	"github.com/golang/gddo/httputil"
	"github.com/munnerz/goautoneg"

	"github.com/admit-go/admit"
)

// BenchmarkAccept compares decisions between three offers, each made for a whole request
// as its library means it. "admit.Accept" is the whole wrapper, with Vary and the
// request's context; "admit.Negotiate" parses the offers each time.
func BenchmarkAccept(b *testing.B) { compare(b, accept()) }

type negotiator struct {
	name   string
	decide func(*http.Request) (offer string, ok bool)
}

func negotiators(offers ...string) []negotiator {
	n := must(admit.NewNegotiator(admit.NegotiatorConfig{Offers: offers}))
	var chosen string
	wrapped := admit.Accept(offers...)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		chosen = admit.MediaTypeFrom(r.Context())
	}))
	w := newDiscard()
	var types []contenttype.MediaType
	for _, offer := range offers {
		types = append(types, contenttype.NewMediaType(offer))
	}
	return []negotiator{
		{"admit", func(r *http.Request) (string, bool) { return n.Negotiate(r.Header["Accept"]) }},
		{"admit.Accept", func(r *http.Request) (string, bool) {
			w.clear()
			w.status, chosen = http.StatusOK, ""
			wrapped.ServeHTTP(w, r)
			return chosen, w.status == http.StatusOK
		}},
		{"admit.Negotiate", func(r *http.Request) (string, bool) { return admit.Negotiate(r.Header["Accept"], offers...) }},
		{"elnormous", func(r *http.Request) (string, bool) {
			t, _, err := contenttype.GetAcceptableMediaType(r, types)
			if err != nil {
				return "", false
			}
			return offers[slices.IndexFunc(types, t.Equal)], true
		}},
		{"gddo", func(r *http.Request) (string, bool) {
			offer := httputil.NegotiateContentType(r, offers, "")
			return offer, offer != ""
		}},
		{"goautoneg", func(r *http.Request) (string, bool) {
			offer := goautoneg.Negotiate(r.Header.Get("Accept"), offers)
			return offer, offer != ""
		}},
	}
}

const tenRanges = "text/plain, application/xhtml+xml, application/xml;q=0.9, image/avif, image/webp, image/apng;q=0.8, text/html;q=0.7, text/csv;q=0.6, application/json;q=0.5, */*;q=0.1"

func accept() (all []contest) {
	offers := []string{"application/json", "text/csv", "text/html"}
	for _, c := range []struct{ name, value, offer string }{
		{"one", "application/json", "application/json"},
		{"any", "*/*", "application/json"},
		{"chrome", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7", "text/html"},
		{"ten", tenRanges, "text/html"},
		{"ten-with-parameters", "text/plain;format=flowed, application/xhtml+xml;v=1, application/xml;v=2;q=0.9, image/avif;a=b, image/webp;a=b, image/apng;a=b;q=0.8, text/html;level=1;q=0.7, text/csv;header=present;q=0.6, application/json;q=0.5, */*;q=0.1", "application/json"},
		{"none", "application/msgpack", ""},
	} {
		work := contest{name: "case=" + c.name}
		for i, l := range negotiators(offers...) {
			work.entries = append(work.entries, entry{l.name, func(v *verdict) {
				l := negotiators(offers...)[i]
				if got := l.offer(c.value); got != c.offer {
					v.wrong("chooses %q, not %q", got, c.offer)
				}
				for _, p := range []struct{ accept, offer string }{
					{"application/json;q=0, */*", "text/csv"},
					{"text/*;q=0.9, text/csv;q=0.1, application/json;q=0.5", "text/html"},
					{"TEXT/CSV", "text/csv"},
					{"text/html;level=1, text/csv;q=0.5", "text/csv"},
				} {
					if got := l.offer(p.accept); got != p.offer {
						v.wrong("chooses %q, not %q, for %q", got, p.offer, p.accept)
					}
				}
				if got := l.offer("image/png", "text/csv"); got != "text/csv" {
					v.note("chooses %q, not text/csv, when that stands on a second line", got)
				}
			}, func(b *testing.B) {
				r := acceptRequest(c.value)
				b.ReportAllocs()
				for b.Loop() {
					l.decide(r)
				}
			}})
		}
		all = append(all, work)
	}
	return all
}

func (n negotiator) offer(lines ...string) string {
	offer, _ := n.decide(acceptRequest(lines...))
	return offer
}

func acceptRequest(lines ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["Accept"] = lines
	r.Header.Set("User-Agent", "benchmark")
	return r
}
