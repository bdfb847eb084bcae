package contract

import (
	"fmt"
	"strings"
	"unicode"
)

// Markdown returns the contract as text to be checked in and reviewed: one row a line, in a
// stable order, and nothing that changes from one run to the next.
func (a *API) Markdown() []byte { return a.model().page().markdown() }

func (d pageDoc) markdown() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# %s %s", plain(d.Title), plain(d.Version))
	for _, p := range paragraphs(d.Description) {
		line("\n%s", plain(p))
	}
	line("\n## Errors\n")
	line("Every error has a status of 400 or above. Programs go by the `code`, which never changes; the message is for people, and may.")
	line("Whether to send the same request again is said with each.")
	if d.Envelope {
		line("The body has `\"result\":\"error\"`, the `message` and the `code`. `request_id` names the request to those who run the service,")
		line("`retry_after` is the header `Retry-After`, `errors` lists what is wrong in the body of the request, and `limits` the limits and")
		line("quotas that are used up. A client that prefers `application/problem+json` gets that (RFC 9457).")
	}
	line("What HTTP does not allow the server refuses by itself, in a form of its own, such as with 400 or 431.")

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
		line("A limit is a bucket that fills up evenly. Answers say in `RateLimit-Policy` which limits hold for the caller (`q` requests in `w`")
		line("seconds), and in `RateLimit` how many requests are left of each (`r`) and over how many seconds they may be spread (`t`). Who has")
		line("used one up is answered 429 with `Retry-After`, in seconds, which is true: a lone client that waits it out is let in.\n")
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
	line("A quota is how many requests a plan has in each day, week or month. All keys of an account use it, at any speed; a request that is")
	line("refused does not count. Answers have it in `RateLimit-Policy` (`q` requests in the `w` seconds of this period) and in `RateLimit`")
	line("(`r` are left, and it is renewed in `t` seconds). Who has used one up is answered 429 `quota_exceeded` with `Retry-After` until it is")
	line("renewed, `resets_at`, and where a plan has more, `upgrade_url`.\n")
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
		line("| plan | has all of | features | where to get it |\n|---|---|---|---|")
		for _, p := range d.Plans {
			line("| %s | %s | %s | %s |", code(p.Name), code(p.Includes), plain(strings.Join(p.Features, ", ")), link(p.UpgradeURL))
		}
	}
}

// plain is text in which nothing is markup, on one line. Nor is anything a link, which some
// readers make of an address: they would show the backslashes in it.
func plain(s string) string {
	var b strings.Builder
	s = oneLine(s)
	for i, r := range s {
		if r == '|' { // which ends a cell in some readers even after a backslash
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

// link is an address that is one to a reader too.
func link(address string) string {
	if address == "" || strings.ContainsAny(address, "<>|\\` ") || address != oneLine(address) {
		return plain(address)
	}
	return "<" + address + ">"
}

func beginsLink(before, rest string) bool {
	return strings.HasPrefix(rest, "://") || rest[0] == '.' && strings.HasSuffix(strings.ToLower(before), "www")
}

// beginsList reports whether a text would be a list, or a line across the page, by its first
// words.
func beginsList(before, rest string) bool {
	if rest[0] == '-' || rest[0] == '+' || rest[0] == '=' {
		return before == ""
	}
	return (rest[0] == '.' || rest[0] == ')') && before != "" && strings.Trim(before, "0123456789") == "" && (len(rest) == 1 || rest[1] == ' ')
}

// code is text as it is, in a cell of a table or a heading; "" is nothing.
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

// oneLine makes one space of all white space and of what no text has.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\ufffd"), func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}

// block is text as it is, on lines of its own.
func block(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	fence := "```"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	return fence + "text\n" + strings.TrimRight(s, "\n") + "\n" + fence
}
