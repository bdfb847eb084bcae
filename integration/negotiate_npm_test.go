package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/integration/servers"
)

// TestNegotiateAgreesWithNPM compares Negotiate with the package negotiator, which
// Express uses. On headers in the grammar of RFC 9110 that leave no choice to the
// server they must agree. Each other set adds one thing about which they differ, says
// why admit's answer stands, and shows that the difference is that and no more: they
// agree again when negotiator gets the same thing said in the grammar.
func TestNegotiateAgreesWithNPM(t *testing.T) {
	t.Parallel()
	servers.Program(t, "node")
	dir := servers.InstallNPM(t, "negotiator")

	for _, set := range []struct {
		name    string
		headers int
		add     func(acceptWriter) addition // to each header of the set
		ties    bool                        // the weights of a header are all the same
		differ  string                      // why; empty: they do not
	}{
		{name: "the grammar of RFC 9110", headers: 20_000},
		{
			name: "equal weights", headers: 5_000, ties: true,
			differ: "the RFC leaves the choice to the server, whose order counts; to negotiator the more specific range does, then the client's order",
		},
		{
			name: "a star alone", headers: 5_000,
			add: func(acceptWriter) addition {
				return addition{of: "*/*", member: "*;q=0.95", said: "*/*;q=0.95"}
			},
			differ: "some clients mean */* by it; negotiator drops it",
		},
		{
			name: "charset", headers: 5_000,
			add: func(w acceptWriter) addition {
				m := w.mediaType()
				return addition{of: m, member: m + ";charset=utf-8;q=0.95", said: m + ";q=0.95"}
			},
			differ: "an offer without a charset, such as JSON, has none to compare; negotiator does not match it",
		},
		{
			name: "an empty value", headers: 5_000,
			add: func(w acceptWriter) addition {
				m := w.mediaType()
				return addition{of: m, member: m + `;level="";q=0.95`}
			},
			differ: "no offer here has it; negotiator takes a parameter that is not there for an empty one",
		},
		{
			name: "the same range twice, once with weight 0", headers: 5_000,
			add: func(w acceptWriter) addition {
				m := w.mediaType()
				return addition{of: m, member: m + ";q=0, " + m + ";q=0.95", said: m + ";q=0"}
			},
			differ: "it contradicts itself, and what a client says it must not get it does not get; negotiator takes the highest weight",
		},
		{
			name: "weights above 1", headers: 5_000,
			add: func(w acceptWriter) addition {
				m, other := w.mediaType(), w.pick("image/png", "text/html;level=1")
				return addition{of: m, member: m + ";q=2, " + other + ";q=1", said: m + ";q=1, " + other + ";q=1"}
			},
			differ: "1 is the most, so that both are equal; negotiator takes 2 for more than 1",
		},
		{
			name: "weights that are no number", headers: 5_000,
			add: func(w acceptWriter) addition {
				m := w.mediaType()
				return addition{of: m, member: m + ";q=" + w.pick("-1", "high", "1e0", "0.9x", ".", "0.9 ;q=0.8")}
			},
			differ: "the member is malformed, and is ignored; negotiator takes -1 for 0, and 0.9x for 0.9",
		},
		{
			name: "malformed members", headers: 5_000,
			add: func(w acceptWriter) addition {
				m := w.mediaType()
				return addition{of: m, member: m + w.pick(" x", ";level", ";level=", `;level="1" x`, "/x")}
			},
			differ: "they are ignored; negotiator reads what it can of them",
		},
	} {
		t.Run(set.name, func(t *testing.T) {
			w := acceptWriter{Rand: rand.New(rand.NewPCG(1, 2)), ties: set.ties}
			questions, said := make([]question, set.headers), make([]question, set.headers)
			for i := range questions {
				var added addition
				if set.add != nil {
					added = set.add(w)
				}
				questions[i], said[i] = w.question(added)
			}
			answers := ask(t, dir, questions)
			same := answers
			if set.add != nil {
				same = ask(t, dir, said)
			}
			disagreements, refused := 0, 0
			for i, q := range questions {
				got, ok := admit.Negotiate(q.lines, q.Offers...)
				if !ok {
					refused++
				}
				if answers[i] != got {
					if disagreements++; disagreements == 1 {
						t.Logf("for example, %s: admit %q, negotiator %q", q, got, answers[i])
					}
				}
				if said[i].Accept == nil {
					continue // all that the header had was malformed
				}
				if theirs := same[i]; theirs != got {
					require.True(t, tie(q.lines, got, theirs), "%s, to negotiator %s: admit %q, negotiator %q", q, said[i], got, theirs)
					require.True(t, set.ties || set.name == "weights above 1", "%s is a tie", q)
				}
			}
			t.Logf("%d headers (%d refused), %d disagreements. %s", len(questions), refused, disagreements, set.differ)
			assert.Positive(t, refused)
			assert.Equal(t, set.differ != "", disagreements > 0, "what is said to differ")
		})
	}

	t.Run("no header and an empty one", func(t *testing.T) {
		empty := ""
		offers := []string{"application/json", "text/csv"}
		answers := ask(t, dir, []question{{Offers: offers}, {Accept: &empty, Offers: offers}})
		assert.Equal(t, []string{offers[0], ""}, answers)
		got, _ := admit.Negotiate(nil, offers...)
		assert.Equal(t, offers[0], got)
		// An empty list names nothing that could be preferred, and so no wish at all.
		got, _ = admit.Negotiate([]string{""}, offers...)
		assert.Equal(t, offers[0], got)
	})
}

// tie reports whether admit finds that the client likes both offers as well.
func tie(accept []string, a, b string) bool {
	first, _ := admit.Negotiate(accept, a, b)
	second, _ := admit.Negotiate(accept, b, a)
	return first == a && second == b
}

// question is one decision. Lines is Accept as it is sent; Accept is what Node makes
// of that.
type question struct {
	lines  []string
	Accept *string  `json:"accept"`
	Offers []string `json:"offers"`
}

func (q question) String() string { return fmt.Sprintf("Accept: %s, offers %q", *q.Accept, q.Offers) }

// addition is a member about which admit and negotiator differ, and the same in words
// about which they do not. Its header has no other range called of.
type addition struct{ of, member, said string }

// acceptWriter writes headers whose weights all differ, so that only an offer which
// is matched by the same range as another can tie with it.
type acceptWriter struct {
	*rand.Rand
	ties bool
}

func (w acceptWriter) pick(of ...string) string { return of[w.IntN(len(of))] }

func (w acceptWriter) mediaType() string {
	return w.pick("text", "application") + "/" + w.pick("html", "plain", "json", "vnd.x+json")
}

func (w acceptWriter) param() string {
	return w.pick("level=1", "level=2", `level="1"`, `level="\2"`, "LEVEL=1", `format="a,b;c"`, "format=flowed", "Format=Flowed")
}

func (w acceptWriter) offer() string {
	if w.IntN(3) == 0 {
		return w.mediaType() + w.pick(";", "; ") + w.param()
	}
	return w.mediaType()
}

// question returns the decision with what is added, and the one with what is said.
func (w acceptWriter) question(added addition) (asked, said question) {
	var members []string
	// Of two ranges that are equally specific and match the same offer only one is written.
	seen := map[string]bool{added.of: true}
	for _, i := range w.Perm(8)[:1+w.IntN(5)] {
		m := w.pick(w.mediaType(), w.mediaType(), w.mediaType(), "text/*", "application/*", "*/*")
		param, kind := "", m
		if w.IntN(4) == 0 {
			param, kind = ";"+w.param(), m+";"
		}
		if seen[kind] {
			continue
		}
		seen[kind] = true
		weight := fmt.Sprintf("%sq=0.%d%s", w.pick(";", "; ", " ;", ";\t"), i+1, w.pick("", "0", "00", "5"))
		if w.ties {
			weight = ";q=0.5"
		}
		if w.IntN(6) == 0 {
			weight = w.pick(";q=0", ";q=0.000", "; Q=0.0")
		}
		if w.IntN(3) == 0 {
			weight, param = param, weight // a weight before a parameter is a weight all the same
		}
		m += param + weight
		if w.IntN(8) == 0 {
			m = strings.ToUpper(m)
		}
		members = append(members, m)
	}
	asked.Offers = make([]string, 1+w.IntN(5))
	for i := range asked.Offers {
		asked.Offers[i] = w.offer()
	}
	at := w.IntN(len(members) + 1)
	write := func(member string) (q question) {
		all := members
		if member != "" {
			all = slices.Insert(slices.Clone(members), at, member)
		}
		if len(all) > 0 {
			cut := min(at, len(all))
			q.lines = []string{strings.Join(all[:cut], ","), strings.Join(all[cut:], " ,\t")}
			accept := strings.Join(q.lines, ", ")
			q.Accept = &accept
		}
		q.Offers = asked.Offers
		return q
	}
	return write(added.member), write(added.said)
}

// ask returns the best offer for each question, to negotiator; empty: it takes none.
func ask(t *testing.T, dir string, questions []question) []string {
	t.Helper()
	var in, stderr bytes.Buffer
	encoder := json.NewEncoder(&in)
	for _, q := range questions {
		require.NoError(t, encoder.Encode(q))
	}
	node := exec.CommandContext(t.Context(), "node", "answer.js")
	node.Dir, node.Stdin, node.Stderr = dir, &in, &stderr
	out, err := node.Output()
	require.NoError(t, err, "%s", stderr.Bytes())
	answers := make([]string, 0, len(questions))
	decoder := json.NewDecoder(bytes.NewReader(out))
	for decoder.More() {
		var answer string
		require.NoError(t, decoder.Decode(&answer))
		answers = append(answers, answer)
	}
	require.Len(t, answers, len(questions))
	return answers
}
