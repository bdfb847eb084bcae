// Package markdown reads the pages of this repository as GitHub shows them, for tests of
// their code and links.
package markdown

import (
	"os"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

// Page is what a page has besides its prose.
type Page struct {
	Blocks  []Block         // of code, in their order
	Links   []string        // as they are written, of images too
	Anchors map[string]bool // of the headings
	Lines   int
}

// Block is a block of code between fences, or indented, which has no language.
type Block struct {
	Lang string
	Text string
	Line int // its first, from 1
}

var github = goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()))

// Read reads the page in a file.
func Read(path string) (Page, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return Page{}, err
	}
	page := Page{Anchors: map[string]bool{}, Lines: strings.Count(string(source), "\n")}
	err = ast.Walk(github.Parser().Parse(text.NewReader(source)), func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			if id, ok := n.AttributeString("id"); ok {
				page.Anchors[string(id.([]byte))] = true
			}
		case *ast.Link:
			page.Links = append(page.Links, string(n.Destination))
		case *ast.Image:
			page.Links = append(page.Links, string(n.Destination))
		case *ast.AutoLink:
			page.Links = append(page.Links, string(n.URL(source)))
		case *ast.FencedCodeBlock:
			page.Blocks = append(page.Blocks, block(string(n.Language(source)), n.Lines(), source))
		case *ast.CodeBlock:
			page.Blocks = append(page.Blocks, block("", n.Lines(), source))
		}
		return ast.WalkContinue, nil
	})
	return page, err
}

func block(lang string, lines *text.Segments, source []byte) Block {
	b := Block{Lang: lang, Text: string(lines.Value(source))}
	if lines.Len() > 0 {
		b.Line = 1 + strings.Count(string(source[:lines.At(0).Start]), "\n")
	}
	return b
}
