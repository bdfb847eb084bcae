package admit

import (
	"slices"

	"github.com/admit-go/admit/internal/published"
)

// Answer is an error that the chain of a Policy may answer with: see Policy.Answers.
type Answer struct {
	Field     string   // of the Policy that it comes from, such as Limiter; "" where every chain has it
	Status    int      // 400 to 599
	Code      string   // what programs go by
	Message   string   // for people
	Headers   []string // that it has, or may have, beside those of every error; sorted
	Retryable bool     // the same request may be let in later: see the package contract
	When      string   // the reason, as a sentence for those who call the API

	// Error is what is sent, complete. Where it differs from request to request, as
	// RetryAfter does, it is an example.
	Error *Error
}

// answer describes e, which is sent for a reason, and with more headers than it has itself.
func answer(e *Error, when string, more ...string) Answer {
	c := e.complete()
	headers := append(published.HeaderNames(c.Header, c.RetryAfter), more...)
	slices.Sort(headers)
	return Answer{
		Status: c.Status, Code: c.Code, Message: c.Message, Headers: slices.Compact(headers),
		Retryable: published.Retryable(c.Status), When: when, Error: c,
	}
}
