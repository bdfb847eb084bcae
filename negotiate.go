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

// Accept answers 406 to a client that takes none of the offers, which the body
// lists; the first offer is the server's favourite. Handlers read the one chosen
// with MediaTypeFrom; Negotiate has the rules. Every response has Vary: Accept, so
// a handler that varies by more must add to Vary, not set it. It panics without an
// offer, and on one that is no media type or is given twice.
func Accept(offers ...string) Middleware {
	n, err := NewNegotiator(NegotiatorConfig{Offers: offers})
	must(renamed("NegotiatorConfig.Offers", "Accept", err))
	return n.Wrap
}

// MediaTypeFrom returns the offer that the innermost Accept chose, as it was given
// there, or "".
func MediaTypeFrom(ctx context.Context) string {
	if s := find(ctx, slotMediaType); s != nil {
		return s.mediaType
	}
	return ""
}

// Negotiate returns the offer that the lines of an Accept header prefer, and false
// if they take none (RFC 9110 §12.5.1). The most specific range that matches an offer
// gives its weight; of equal weights the earlier offer wins. Malformed members are
// ignored; if no other is there, the first offer is returned. An offer that is no
// media type is passed over.
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

// NegotiatorConfig is what NewNegotiator needs.
type NegotiatorConfig struct {
	// Offers are the media types that the handler can send, its favourite first.
	Offers []string
	// Fallback is the offer for a client that takes none of them, who then gets no
	// 406 (RFC 9110 §12.4.1). Empty: 406.
	Fallback string
}

// Negotiator is the configured form of Accept. It is read-only: any number of
// goroutines may use it, and it may wrap any number of handlers.
type Negotiator struct {
	offers   []mediatype.Type
	fallback int // an index of offers; -1: 406
	refusal  *Error
	usual    []decided
	made     made
}

// decided is a decision made at construction.
type decided struct {
	accept string
	offer  int
}

// NewNegotiator returns a Negotiator. The error has every fault of the configuration; the
// Negotiator that comes with it cannot serve.
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

	// Most programs send one of these, whole.
	for _, accept := range append([]string{"*/*"}, offers...) {
		n.usual = append(n.usual, decided{accept, mediatype.Negotiate([]string{accept}, n.offers)})
	}
	return n, nil
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(other string) bool { return strings.EqualFold(other, s) })
}

// Negotiate returns what Wrap chooses for the lines of an Accept header, the
// fallback included; false stands for 406. It allocates nothing.
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

// Wrap lets a request in to next if the client takes one of the offers.
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
	return []Answer{answer(n.refusal, "The Accept header takes none of the media types of the resource.", "Vary")}
}
