package page

import (
	"bytes"
	stdhtml "html"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	renderer "github.com/yuin/goldmark/renderer/html"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/contract"
)

// github reads Markdown as GitHub does. HTML is passed on, since a reader shows what is in it.
var github = goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithRendererOptions(renderer.WithUnsafe()))

// FuzzMarkdownReads holds that a message of a service is read in the Markdown as it is, but
// for spaces: it is one cell, and nothing of it is markup.
func FuzzMarkdownReads(f *testing.F) {
	for _, s := range []string{
		"plain", "|", `\`, `\|`, `\\|`, "`", "``a``", "`|`", "a`b|c", "*b* _i_ __x__ a_b_c", "[l](/x) ![i](x) <b> <!-- x --> &lt; &#60;",
		"https://example.com/?a=1&b=2 www.example.com a@example.com mailto:a@example.com ftp://x", "~~s~~ $x$ #1 # x #", "1. x", "- x", "- [ ] x", "| x |", "\\", "x\\",
		"HTTP://x WWW.x wwww.x", ":::", "xmpp:a@b.c", "\"--...'", "\u202e\u00a0\u2028x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		api, err := contract.New(contract.Info{Title: "T", Version: "1"}, admit.Policy{})
		require.NoError(t, err)
		api.Declare("/x", admit.Policy{}, &admit.Error{Status: 409, Code: "c" + text, Message: "m" + text})
		var page bytes.Buffer
		require.NoError(t, github.Convert(api.Markdown(), &page))
		want := strings.ToValidUTF8(text, "\ufffd")
		_, after, found := strings.Cut(page.String(), "<h2>Routes</h2>")
		require.True(t, found)
		var rows [][]string
		for _, row := range regexp.MustCompile(`(?s)<tr>(.*?)</tr>`).FindAllStringSubmatch(after, -1) {
			var cells []string
			for _, cell := range regexp.MustCompile(`(?s)<td[^>]*>(.*?)</td>`).FindAllStringSubmatch(row[1], -1) {
				assert.NotRegexp(t, `<[^>]*>`, strings.NewReplacer("<code>", "", "</code>", "").Replace(cell[1]))
				cells = append(cells, words(stdhtml.UnescapeString(strings.NewReplacer("<code>", "", "</code>", "").Replace(cell[1]))))
			}
			rows = append(rows, cells)
		}
		assert.Contains(t, rows, []string{"409", words("c" + want), words("m" + want)}, "%q", text)
	})
}

// words is a text without what is not for reading.
func words(s string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)), " ")
}
