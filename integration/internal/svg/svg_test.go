package svg_test

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/internal/svg"
)

func TestDrawing(t *testing.T) {
	t.Parallel()
	d := svg.New(200, 100, "a < b")
	d.Heading(1, 2, "<heading>")
	d.Text(1, 2, svg.Middle, svg.Dark, `"&"`)
	d.Dot(3, 4, svg.Blue, svg.Grey)
	d.Tick(10, 50, 20, "5 ms")
	d.Curve(svg.Pen{Colour: svg.Green, Width: 1.5, Dashed: true}, 3, func(i int) (x, y float64) { return float64(i), float64(i * i) })
	drawing := string(d.Bytes())

	elements := map[string]int{}
	for decoder := xml.NewDecoder(strings.NewReader(drawing)); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok {
			elements[e.Name.Local]++
		}
	}
	assert.Equal(t, map[string]int{"svg": 1, "title": 1, "rect": 1, "text": 3, "circle": 1, "path": 2}, elements)
	assert.Contains(t, drawing, `<title>a &lt; b</title>`)
	assert.Contains(t, drawing, `>&#34;&amp;&#34;</text>`)
	assert.Contains(t, drawing, `<path d="M10.0 20.0L60.0 20.0" stroke="#ddd"/>`)
	assert.Contains(t, drawing, `stroke="#2a8a4a" stroke-width="1.5" stroke-dasharray="5 3" d="M0.0 0.0L1.0 1.0L2.0 4.0"/>`)
}

func TestRoundUp(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]float64{1: 1, 1.2: 2, 3: 4, 5: 6, 7: 8, 8.1: 10, 10: 10, 0.3: 0.4, 12345: 20000, 99: 100} {
		assert.InDelta(t, want, svg.RoundUp(n), 1e-9, "%v", n)
	}
}
