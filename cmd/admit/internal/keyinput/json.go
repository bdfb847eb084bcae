package keyinput

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/internal/jsonfault"
	"github.com/admit-go/admit/internal/keyform"
)

// LimitsJSON returns limits in the form of JSON lines and of key files.
func LimitsJSON(limits []admit.Limit) []keyform.Limit {
	var list []keyform.Limit
	for _, l := range limits {
		list = append(list, keyform.Limit{Name: l.Name, Requests: l.Requests, Per: keyform.FormatPer(l.Per), Burst: l.Burst})
	}
	return list
}

// QuotasJSON returns quotas in the form of JSON lines and of key files.
func QuotasJSON(quotas []admit.Quota) []keyform.Quota[admit.Period] {
	var list []keyform.Quota[admit.Period]
	for _, q := range quotas {
		list = append(list, keyform.Quota[admit.Period](q))
	}
	return list
}

// object is one line of JSON lines.
type object struct {
	ID        string                  `json:"id"`
	Token     string                  `json:"token"`
	Digest    string                  `json:"digest"`
	Owner     string                  `json:"owner"`
	Plan      string                  `json:"plan"`
	Scopes    []string                `json:"scopes"`
	Limits    []keyform.Limit         `json:"limits"`
	Quotas    []keyform.Quota[string] `json:"quotas"`
	Networks  []string                `json:"networks"`
	NotBefore time.Time               `json:"not_before"`
	ExpiresAt time.Time               `json:"expires_at"`
	RevokedAt time.Time               `json:"revoked_at"`
	Meta      map[string]string       `json:"meta"`
}

var names = func() map[string]bool {
	known := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[object]()) {
		known[f.Tag.Get("json")] = true
	}
	return known
}()

func (p *parser) jsonLines(in *bufio.Reader) {
	for line := 1; !p.full(); line++ {
		text, err := in.ReadBytes('\n')
		var long errLongLine
		if errors.As(err, &long) {
			p.fault(long.line, long)
			return
		}
		if err != nil && !errors.Is(err, io.EOF) {
			p.fault(line, err)
			return
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			p.jsonLine(line, text)
		}
		if err != nil {
			return
		}
	}
}

func (p *parser) jsonLine(line int, text []byte) {
	if !p.isUTF8(text, line) {
		return
	}
	if at, err := jsonfault.Syntax(text); err != nil { // which may repeat names of the text
		p.fault(line, fmt.Errorf("not one JSON object, from column %d on; jq -c . writes one per line", at+1))
		return
	}
	p.object(text, line, 0)
}

// isUTF8 reports whether a text is in UTF-8, or else records where it is not. encoding/json would
// replace what it cannot read.
func (p *parser) isUTF8(text []byte, line int) bool {
	if utf8.Valid(text) {
		return true
	}
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		text = text[size:]
	}
	p.fault(line, errors.New("the text is not valid UTF-8"))
	return false
}

// object reads the object of a key, which is one JSON value. It begins in a line, after the
// first bytes of it.
func (p *parser) object(text []byte, line int, first int64) {
	if text[0] != '{' {
		p.fault(line, errors.New("not a JSON object"))
		return
	}
	fault := func(offset int64, says string) {
		lines, column := jsonfault.Position(text, offset)
		if lines == 1 {
			column += int(first)
		}
		p.fault(line+lines-1, fmt.Errorf("column %d: %s", column, says))
	}
	var name *nameError
	switch err := checkNames(jsonfault.NewReader(text), namesOfKey); {
	case errors.As(err, &name):
		fault(name.offset, name.says)
		return
	case err != nil:
		p.fault(line, err)
		return
	}
	var o object
	if err := jsonfault.NewReader(text).Decode(&o); err != nil {
		for _, f := range jsonfault.Explain(text, reflect.TypeFor[object]()).Faults {
			if f.Code == "unknown_member" { // of a member such as limits: checkNames has looked at the others
				f.Message = "has a member that is not known"
			}
			fault(f.Offset, place(f.Path)+" "+f.Message)
		}
		return
	}
	var limits []admit.Limit
	for _, l := range o.Limits {
		per, ok := ParseSpan(l.Per)
		if !ok {
			p.fault(line, errors.New(`a limit is {"name": "minute", "requests": 1000, "per": "60s"}, optionally with "burst"`))
			return
		}
		limits = append(limits, admit.Limit{Name: l.Name, Requests: l.Requests, Per: per, Burst: l.Burst})
	}
	var quotas []admit.Quota
	for _, q := range o.Quotas {
		quota := admit.Quota{Name: q.Name, Requests: q.Requests, Soft: q.Soft}
		if quota.Every.UnmarshalText([]byte(q.Every)) != nil {
			p.fault(line, errors.New(`a quota is {"requests": 20000, "every": "month"}, where every is day, week or month, optionally with "name" and "soft"`))
			return
		}
		quotas = append(quotas, quota)
	}
	p.row(line, &fields{
		id: o.ID, token: o.Token, digest: o.Digest, owner: o.Owner, plan: o.Plan, scopes: o.Scopes, networks: o.Networks,
		limits: limits, quotas: quotas, notBefore: o.NotBefore, expiresAt: o.ExpiresAt, revokedAt: o.RevokedAt, meta: o.Meta,
	})
}

// place returns the path of a fault without names that come from the text, such as those of
// meta.
func place(path string) string {
	first := path
	if i := strings.IndexAny(path, ".["); i >= 0 {
		first = path[:i]
	}
	if names[first] {
		return fmt.Sprintf("%q", first)
	}
	return "the value"
}

// nameError is a name that an object must not have.
type nameError struct {
	offset int64
	says   string
}

func (e *nameError) Error() string { return e.says }

// nameRule says which names an object may have.
type nameRule int

const (
	namesOfKey   nameRule = iota // those of a key, in exactly this form
	anyNames                     // meta has them
	namesOfLimit                 // of limits and quotas, where encoding/json takes "Burst" for "burst"
)

// checkNames reads one value. It rejects duplicate names in an object, which encoding/json
// accepts, and unknown names of a key.
func checkNames(in *jsonfault.Reader, rule nameRule) error {
	open := in.Peek()
	if open != '{' && open != '[' {
		return in.Skip()
	}
	if err := in.Enter(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for in.More() {
		inside := rule
		if open == '{' {
			offset := in.Next()
			name, err := in.Name()
			folded := name
			if rule == namesOfLimit {
				folded = strings.ToLower(strings.ToUpper(name))
			}
			switch {
			case err != nil:
				return err
			case rule == namesOfKey && !names[name]:
				return &nameError{offset, fmt.Sprintf("%s is not a known member", shown(name))}
			case seen[folded]:
				return &nameError{offset, fmt.Sprintf("the member %s is duplicated", shown(name))}
			}
			seen[folded] = true
			if rule == namesOfKey {
				inside = anyNames
				if name == "limits" || name == "quotas" {
					inside = namesOfLimit
				}
			}
		}
		if err := checkNames(in, inside); err != nil {
			return err
		}
	}
	return in.Leave()
}
