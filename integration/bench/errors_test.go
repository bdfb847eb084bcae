package main

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/go-chi/render"
	"github.com/moogar0880/problems"

	"github.com/admit-go/admit"
)

// BenchmarkError writes an error of a handler. "encoding-json" is what one writes by hand.
func BenchmarkError(b *testing.B) { compare(b, writtenErrors()) }

type handWritten struct {
	Result  string `json:"result"`
	Message string `json:"message"`
	Code    string `json:"code"`
}

func writtenErrors() []contest {
	notFound := admit.NewError(http.StatusNotFound, "There is no such pair.")
	work := contest{name: "case=404"}
	get := requests("GET", "")
	scratch := new(http.Request)
	for _, l := range []struct {
		name  string
		write http.HandlerFunc
	}{
		{"admit", func(w http.ResponseWriter, r *http.Request) { admit.WriteError(w, r, notFound) }},
		{"encoding-json", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(handWritten{"error", "There is no such pair.", "not_found"})
		}},
		{"chi-render", func(w http.ResponseWriter, r *http.Request) {
			*scratch = *r // which Status changes
			render.Status(scratch, http.StatusNotFound)
			render.JSON(w, scratch, handWritten{"error", "There is no such pair.", "not_found"})
		}},
		{"problems", func(w http.ResponseWriter, r *http.Request) {
			problems.ProblemHandler(problems.NewDetailedProblem(http.StatusNotFound, "There is no such pair."))(w, r)
		}},
		{"http.Error", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "There is no such pair.", http.StatusNotFound)
		}},
	} {
		work.entries = append(work.entries, entry{l.name, func(v *verdict) {
			res := v.ask(l.write, get(), 404, "the error")
			if fault := bodyFault(res); fault != "" {
				v.wrong("%s", fault)
			}
			if res.Header.Get("X-Content-Type-Options") != "nosniff" {
				v.note("lets browsers guess the type")
			}
			if res.Header.Get("Cache-Control") != "no-store" {
				v.note("lets caches keep it")
			}
		}, serially(l.write, get, 404)})
	}
	return []contest{work}
}
