package admit

import (
	"slices"

	"github.com/admit-go/admit/internal/published"
)

// Answer is an error that the chain of a Policy may answer with: see Policy.Answers.
type Answer struct {
	Field     string   // the field of the Policy that it comes from, such as Limiter; "" for every chain
	Status    int      // 400 to 599
	Code      string   // for programs
	Message   string   // for people
	Headers   []string // headers that it has or may have, besides those of every error; sorted
	Retryable bool     // the same request may be let in later: see the package contract
	When      string   // the reason, as a sentence for users of the API

	// Error is what is sent, with all fields set. Values that differ between requests, such
	// as RetryAfter, are examples.
	Error *Error
}

// answer describes e, the reason for which it is sent, and the headers that it has beside its
// own.
func answer(e *Error, when string, more ...string) Answer {
	c := e.complete()
	headers := append(published.HeaderNames(c.Header, c.RetryAfter), more...)
	slices.Sort(headers)
	return Answer{
		Status: c.Status, Code: c.Code, Message: c.Message, Headers: slices.Compact(headers),
		Retryable: published.Retryable(c.Status), When: when, Error: c,
	}
}
