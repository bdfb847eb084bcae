package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/gorilla/handlers"

	"github.com/admit-go/admit"
)

// BenchmarkMethods has GET and POST taken. The routers find the handler too.
func BenchmarkMethods(b *testing.B) { compare(b, methods()) }

func methods() (all []contest) {
	libs := []struct {
		name string
		wrap func(http.Handler) http.Handler
	}{
		{"admit", admit.Methods("GET", "POST")},
		{"gorilla", func(next http.Handler) http.Handler {
			return handlers.MethodHandler{"GET": next, "POST": next}
		}},
		{"ServeMux", func(next http.Handler) http.Handler {
			m := http.NewServeMux()
			m.Handle("GET /", next)
			m.Handle("POST /", next)
			return m
		}},
		{"chi", func(next http.Handler) http.Handler {
			m := chi.NewRouter()
			m.Method("GET", "/", next)
			m.Method("POST", "/", next)
			return m
		}},
	}
	get, remove := requests("GET", ""), requests("DELETE", "")
	accepted, refused := contest{name: "case=accepted"}, contest{name: "case=405"}
	for _, l := range libs {
		h := l.wrap(nothing)
		accepted.entries = append(accepted.entries, entry{l.name, func(v *verdict) {
			ran := false
			v.ask(l.wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true })), get(), 200, "GET")
			if !ran {
				v.wrong("does not call the handler")
			}
			for _, method := range []string{"HEAD", "OPTIONS"} {
				w := newDiscard()
				if h.ServeHTTP(w, requests(method, "")()); w.status > 299 {
					v.note("answers %s with %d", method, w.status)
				}
			}
		}, serially(h, get, 200)})
		refused.entries = append(refused.entries, entry{l.name, func(v *verdict) {
			res := v.refusal(h, remove(), 405, "DELETE")
			allow := strings.Join(res.Header.Values("Allow"), ", ")
			for _, method := range []string{"GET", "POST"} {
				if !strings.Contains(allow, method) {
					v.wrong("its Allow is %q, without %s", allow, method)
				}
			}
		}, serially(h, remove, 405)})
	}
	return []contest{accepted, refused}
}
