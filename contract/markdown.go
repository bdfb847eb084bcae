package contract

import (
	"fmt"
	"strings"
	"unicode"
)

// Markdown returns the contract as Markdown, to be checked in and reviewed: one row a line,
// in a stable order. The same contract always gives the same bytes.
func (a *API) Markdown() []byte { return a.model().page().markdown() }

func (d pageDoc) markdown() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# %s %s", plain(d.Title), plain(d.Version))
	for _, p := range paragraphs(d.Description) {
		line("\n%s", plain(p))
	}
	line("\n## Errors\n")
	line("Every error has a status of 400 or above. Programs should use the `code`, which never changes. The message is for people and may change.")
	line("The tables below say of each error whether to send the same request again.")
	if d.Envelope {
		line("The body has `\"result\":\"error\"`, the `message` and the `code`. It may also have `request_id`, the id to quote when you report a")
		line("problem; `retry_after`, the seconds of the header `Retry-After`; `errors`, the problems in the content of the request; and `limits`, the names")
		line("of the limits and quotas that are used up. A client that prefers `application/problem+json` gets that form (RFC 9457).")
	}
	line("The server itself rejects what is not valid HTTP, for example with 400 or 431. Those responses have another form.")

	if len(d.Auth) > 0 {
		line("\n## Authentication\n")
		line("| name | how |\n|---|---|")
		for _, c := range d.Auth {
			line("| %s | %s |", code(c.ID), plain(c.How))
		}
	}
	d.limitsTo(line)
	d.quotasTo(line)
	d.plansTo(line)

	line("\n## Statuses\n")
	line("| status | meaning |\n|---|---|")
	for _, s := range d.Statuses {
		line("| %d | %s |", s.Status, plain(s.Meaning))
	}
	for _, s := range d.Statuses {
		line("\n### %d %s\n", s.Status, plain(s.Name))
		line("| code | when | message | headers | send again? |\n|---|---|---|---|---|")
		for _, c := range s.Codes {
			for _, r := range c.Reasons {
				line("| %s | %s | %s | %s | %s |", code(c.Code), plain(r.When), plain(r.Message), codes(r.Headers), plain(r.Retry))
			}
		}
		for _, c := range s.Codes {
			if c.Example.Body == "" {
				continue
			}
			text := fmt.Sprintf("HTTP/1.1 %d %s\n%s\n%s", s.Status, s.Name, headerLines(c.Example), c.Example.Body)
			if c.Curl != "" {
				text = "$ " + c.Curl + "\n" + text
			}
			line("\n%s", block(text))
		}
	}

	line("\n## Routes")
	for _, r := range d.Routes {
		methods := strings.Join(r.Methods, ", ")
		if methods == "" {
			methods = "any"
		}
		line("\n### %s\n", code(r.Pattern))
		line("- Methods: %s", plain(methods))
		for _, f := range r.Facts {
			line("- %s: %s", f.Name, plain(f.Value))
		}
		line("\n%s\n", block(r.Curl))
		line("| status | code | when |\n|---|---|---|")
		for _, a := range r.Answers {
			line("| %d | %s | %s |", a.Status, code(a.Code), plain(a.When))
		}
	}
	return []byte(b.String())
}

func (d pageDoc) limitsTo(line func(string, ...any)) {
	if len(d.Limits) > 0 {
		line("\n## Limits\n")
		line("A rate limit is a bucket that refills evenly. In responses, `RateLimit-Policy` lists the limits of the caller (`q` requests in `w`")
		line("seconds), and `RateLimit` says how many requests are left of each (`r`) and over how many seconds to spread them (`t`). A caller")
		line("that has used up a limit gets 429 with `Retry-After` in seconds. A client that is alone in using the limit and waits that long is admitted.\n")
		line("| for | limits | RateLimit-Policy |\n|---|---|---|")
		for _, l := range d.Limits {
			var all []string
			for _, limit := range l.Limits {
				all = append(all, code(limit.Name)+" "+plain(limit.String()))
			}
			line("| %s | %s | %s |", plain(l.For), strings.Join(all, "; "), code(l.Policy))
		}
	}
}

func (d pageDoc) quotasTo(line func(string, ...any)) {
	if len(d.Quotas) == 0 {
		return
	}
	line("\n## Quotas\n")
	line("A quota is the number of requests that a plan includes in each day, week or month, at any speed. All keys of an account share it.")
	line("A request that is rejected before it is processed does not count; one that fails later may. In responses, `RateLimit-Policy` has the")
	line("quota (`q` requests in the `w` seconds of this period), and `RateLimit` says how much is left (`r` requests) and when it is renewed")
	line("(after `t` seconds). An account that has used up a quota gets 429 `quota_exceeded`, with the time of the renewal in `Retry-After` and")
	line("`resets_at`, and with `upgrade_url` if another plan has more.\n")
	line("| for | quota | periods begin | RateLimit-Policy |\n|---|---|---|---|")
	for _, all := range d.Quotas {
		for _, q := range all.Quotas {
			line("| %s | %s %s | %s | %s |", plain(all.For), code(q.Name), plain(q.String()), plain(all.Begin), code(all.Policy))
		}
	}
}

func (d pageDoc) plansTo(line func(string, ...any)) {
	if len(d.Plans) > 0 {
		line("\n## Plans\n")
		line("| plan | includes | features | where to get it |\n|---|---|---|---|")
		for _, p := range d.Plans {
			line("| %s | %s | %s | %s |", code(p.Name), code(p.Includes), plain(strings.Join(p.Features, ", ")), link(p.UpgradeURL))
		}
	}
}

// plain escapes a text so that Markdown shows it as it is, on one line. It also keeps readers
// from making a link of an address: they would show the backslashes in it.
func plain(s string) string {
	var b strings.Builder
	s = oneLine(s)
	for i, r := range s {
		if r == '|' { // some readers end a cell here even after a backslash
			b.WriteString("&#124;")
			continue
		}
		if strings.ContainsRune("\\`*_{}[]<>#~&@$", r) || beginsLink(s[:i], s[i:]) || beginsList(s[:i], s[i:]) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// link writes an address as a link, if it can be one.
func link(address string) string {
	if address == "" || strings.ContainsAny(address, "<>|\\` ") || address != oneLine(address) {
		return plain(address)
	}
	return "<" + address + ">"
}

func beginsLink(before, rest string) bool {
	return strings.HasPrefix(rest, "://") || rest[0] == '.' && strings.HasSuffix(strings.ToLower(before), "www")
}

// beginsList reports whether the first characters of a text would make it a list, or a line
// across the page.
func beginsList(before, rest string) bool {
	if rest[0] == '-' || rest[0] == '+' || rest[0] == '=' {
		return before == ""
	}
	return (rest[0] == '.' || rest[0] == ')') && before != "" && strings.Trim(before, "0123456789") == "" && (len(rest) == 1 || rest[1] == ' ')
}

// code writes a text as a code span, for a cell of a table or a heading; "" for no text.
func code(s string) string {
	if s = oneLine(s); s == "" {
		return ""
	}
	if strings.Contains(s, "|") {
		return "<code>" + plain(s) + "</code>"
	}
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") {
		s = " " + s + " "
	}
	return fence + s + fence
}

func codes(list []string) string {
	all := make([]string, len(list))
	for i, s := range list {
		all[i] = code(s)
	}
	return strings.Join(all, ", ")
}

// oneLine replaces each run of white space and control characters with one space.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\ufffd"), func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}

// block writes a text as a code block.
func block(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	fence := "```"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	return fence + "text\n" + strings.TrimRight(s, "\n") + "\n" + fence
}
