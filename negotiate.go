package admit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/admit-go/admit/internal/mediatype"
)

// Accept returns a middleware that chooses one of the offers, which are media types, by the
// Accept header. A client that accepts none of them gets 406, with the offers in the body. The
// server prefers the first offer. Handlers get the chosen one from [MediaTypeFrom]; [Negotiate]
// has the rules.
//
// Every response has Vary: Accept. A handler that varies by more must add to Vary, not set it.
// Accept panics on offers that [NegotiatorConfig] does not permit.
func Accept(offers ...string) Middleware {
	n, err := NewNegotiator(NegotiatorConfig{Offers: offers})
	must(renamed("NegotiatorConfig.Offers", "Accept", err))
	return n.Wrap
}

// MediaTypeFrom returns the offer that the innermost Accept or Negotiator has chosen, as it was
// given there, or "" if there is none.
func MediaTypeFrom(ctx context.Context) string {
	if s := find(ctx, slotMediaType); s != nil {
		return s.mediaType
	}
	return ""
}

// Negotiate returns the offer that the lines of an Accept header prefer (RFC 9110 §12.5.1), and
// false if they accept none. The weight of an offer is the weight of the most specific range that
// matches it. Of offers with equal weight, the first wins. Malformed members are ignored; if
// there are no others, the first offer is returned. An offer that is not a media type is skipped.
func Negotiate(accept []string, offers ...string) (string, bool) {
	types := make([]mediatype.Type, 0, 16) // on the stack, as long as there are no more
	for _, text := range offers {
		if t, err := mediatype.Parse(text); err == nil && !t.HasWildcard() {
			types = append(types, t)
		}
	}
	if best := mediatype.Negotiate(accept, types); best >= 0 {
		return types[best].String(), true
	}
	return "", false
}

// NegotiatorConfig configures NewNegotiator.
type NegotiatorConfig struct {
	// Offers are the media types that the handler can send, the preferred one first. Required.
	// Permitted: media types with or without parameters, such as "text/html; charset=utf-8".
	// Prohibited: ranges such as "text/*", a weight (q), space around an offer, duplicates.
	Offers []string
	// Fallback is the offer for a client that accepts none (RFC 9110 §12.4.1). It must be one of
	// Offers. Empty means that such a client gets 406.
	Fallback string
}

// Negotiator is a middleware that chooses a media type: [Accept] with a configuration. It is
// immutable and safe for concurrent use, and may wrap any number of handlers.
type Negotiator struct {
	offers   []mediatype.Type
	fallback int // an index of offers; -1: 406
	refusal  *Error
	usual    []decided
	made     made
}

// decided is a decision for a common Accept header, made at construction.
type decided struct {
	accept string
	offer  int
}

// NewNegotiator returns a Negotiator. The error has every problem of the configuration; the
// Negotiator returned with it cannot serve.
func NewNegotiator(c NegotiatorConfig) (*Negotiator, error) {
	var f faults
	if len(c.Offers) == 0 {
		f.add("NegotiatorConfig.Offers", `has no offer; name what the handler can send, such as "application/json"`)
	}
	n := &Negotiator{fallback: -1, made: made{ok: true}}
	for i, text := range c.Offers {
		t, err := mediatype.Parse(text)
		_, weighted := t.Param("q")
		switch {
		case err != nil:
		case t.HasWildcard():
			err = errors.New("is a range; name each type that the handler can send")
		case weighted:
			err = errors.New("has a weight; the order of the offers is their preference")
		case strings.TrimSpace(text) != text:
			err = errors.New("has space around it")
		case containsFold(c.Offers[:i], text):
			err = errors.New("is given twice")
		}
		if err != nil {
			f.add(fmt.Sprintf("NegotiatorConfig.Offers[%d]", i), "is %q, which %v", text, err)
			continue
		}
		if text == c.Fallback {
			n.fallback = len(n.offers)
		}
		n.offers = append(n.offers, t)
	}
	if c.Fallback != "" && !slices.Contains(c.Offers, c.Fallback) {
		f.add("NegotiatorConfig.Fallback", "is %q, which is not one of the Offers", c.Fallback)
	}
	if err := f.err(); err != nil {
		return &Negotiator{made: made{err: err}, fallback: -1}, err
	}
	offers := slices.Clone(c.Offers)
	n.refusal = NewError(http.StatusNotAcceptable, "No accepted media type can be sent; the resource is available as "+strings.Join(offers, ", ")+".")
	n.refusal.Meta = map[string]any{"offers": offers}

	// Most clients send exactly one of these.
	for _, accept := range append([]string{"*/*"}, offers...) {
		n.usual = append(n.usual, decided{accept, mediatype.Negotiate([]string{accept}, n.offers)})
	}
	return n, nil
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(other string) bool { return strings.EqualFold(other, s) })
}

// Negotiate returns the offer that Wrap chooses for the lines of an Accept header, which may be
// the fallback. It returns false where Wrap responds with 406. It does not allocate.
func (n *Negotiator) Negotiate(accept []string) (string, bool) {
	if n.fault() != nil {
		return "", false
	}
	if len(accept) == 1 {
		for i := range n.usual {
			if n.usual[i].accept == accept[0] {
				return n.offers[n.usual[i].offer].String(), true
			}
		}
	}
	best := mediatype.Negotiate(accept, n.offers)
	if best < 0 {
		best = n.fallback
	}
	if best < 0 {
		return "", false
	}
	return n.offers[best].String(), true
}

func (n *Negotiator) fault() error {
	if n == nil {
		return (*made)(nil).fault("Negotiator")
	}
	return n.made.fault("Negotiator")
}

// Wrap returns a handler that passes a request to next if the client accepts one of the offers.
func (n *Negotiator) Wrap(next http.Handler) http.Handler {
	must(n.fault())
	return wrap("Accept", next, func(in inside, w http.ResponseWriter, r *http.Request) {
		offer, ok := n.Negotiate(r.Header["Accept"])
		if !ok {
			addVary(w.Header(), "Accept")
			WriteError(w, r, n.refusal)
			return
		}
		s, w, inner := in.fill(w, r, slotMediaType)
		defer s.leave(r, inner)
		s.mediaType = offer
		if h := w.Header(); len(h["Vary"]) == 0 {
			h["Vary"] = in.one("Accept")
		} else {
			addVary(h, "Accept")
		}
		in.ServeHTTP(w, inner)
	})
}

func (n *Negotiator) answers() []Answer {
	if n.fallback >= 0 {
		return nil
	}
	return []Answer{answer(n.refusal, "The Accept header does not accept any media type of the resource.", "Vary")}
}
