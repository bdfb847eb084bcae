package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// output is what a test binary prints in a round in which everything takes so many ns.
func output(ns ...string) string {
	return strings.NewReplacer("$0", ns[0], "$1", ns[1], "$2", ns[2]).Replace(`goos: linux
cpu: A processor
BenchmarkAccept/case=one/lib=admit-2   	 1000	 $0 ns/op	 0 B/op	 0 allocs/op
2000/01/01 00:00:00 WARN a line of a log
BenchmarkAccept/case=one/lib=fast-2    	 1000	 $1 ns/op	 24 B/op	 1 allocs/op
BenchmarkAccept/case=one/lib=floor-2   	 1000	 1.0 ns/op	 0 B/op	 0 allocs/op
BenchmarkAccept/case=one/lib=go-limiter-2 	 1000	 $2 ns/op	 1024 B/op	 3 allocs/op
BenchmarkMemory/lib=admit-2 	 1	 130 B/key	 0 B/op
BenchmarkMemory/lib=fast-2 	 1	 260 B/key	 0 B/op
BenchmarkGrowth/by=keys/lib=admit/n=100-2 	 1	 10 ns/op	 0 B/op
BenchmarkGrowth/by=keys/lib=admit/n=1000-2 	 1	 20 ns/op	 0 B/op
BenchmarkKnown-2 	 1	 10 ns/op
PASS
`)
}

func measured(t *testing.T, m marks) *results {
	t.Helper()
	all := newResults(m)
	for _, ns := range [][]string{{"10", "9", "30"}, {"12", "13", "29"}, {"11", "11", "31"}, {"10.5", "10", "33"}, {"11.5", "12", "30"}} {
		require.NoError(t, all.read(strings.NewReader(output(ns...))))
	}
	return all
}

func TestRead(t *testing.T) {
	t.Parallel()
	all := measured(t, nil)
	var names []string
	for _, l := range all.rows {
		names = append(names, l.name)
	}
	assert.Equal(t, []string{"Accept/case=one", "Memory", "Growth/by=keys/n=100", "Growth/by=keys/n=1000"}, names)
	assert.Equal(t, "A processor", all.config["cpu"])
	one := all.rows[0]
	assert.InDelta(t, 11e-9, one.of("admit").median("sec/op"), 1e-12)
	assert.InDelta(t, 1024, one.of("go-limiter").median("B/op"), 0)
	assert.Equal(t, "one", one.label())
	assert.Equal(t, "keys: 100", all.rows[2].label())
	assert.Equal(t, "B/key", all.rows[1].unit())
}

func TestRatio(t *testing.T) {
	t.Parallel()
	all := measured(t, nil)
	one := all.rows[0]
	for lib, want := range map[string]string{"admit": "", "fast": "~", "go-limiter": "2.73×", "floor": "0.091×"} {
		assert.Equal(t, want, one.ratio(one.of(lib)), lib)
	}
	memory := all.rows[1]
	assert.Equal(t, "2×", memory.ratio(memory.of("fast")))
}

func TestBestPeerAnswersRightly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		marks       marks
		best, wrong string
	}{
		{nil, "fast", ""},
		{marks{{Row: "Accept/case=one", Lib: "fast", Text: "says less"}}, "fast", ""},
		{marks{{Row: "Accept", Lib: "fast", Text: "is wrong", Wrong: true}}, "go-limiter", "fast"},
		{marks{{Row: "Accept/case=o", Lib: "fast", Text: "is wrong elsewhere", Wrong: true}}, "fast", ""},
		{marks{{Row: "Accept/case=one", Lib: "fast", Wrong: true}, {Row: "Accept/case=one", Lib: "go-limiter", Wrong: true}}, "", "fast"},
	} {
		row := measured(t, test.marks).rows[0]
		for wrong, want := range map[bool]string{false: test.best, true: test.wrong} {
			if c := row.best(wrong); want == "" {
				assert.Nil(t, c, "%+v", test)
			} else if assert.NotNil(t, c, "%+v", test) {
				assert.Equal(t, want, c.lib, "%+v", test)
			}
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	all := measured(t, marks{
		{Row: "Accept/case=one", Lib: "fast", Text: "says less"},
		{Row: "Accept/case=one", Lib: "fast", Text: "is wrong", Wrong: true},
		{Row: "Accept/case=one", Lib: "go-limiter", Text: "says less"},
	})
	report, err := all.report(t.Context(), options{rounds: 5}, []*suite{{dir: t.TempDir(), modules: []string{"b v1", "a v2", "b v1"}}})
	require.NoError(t, err)
	assert.Contains(t, report, "Versions: a v2, b v1\n")
	var table []string
	for line := range strings.Lines(report) {
		if fields := strings.Join(strings.Fields(line), " "); fields != "" && strings.Contains("|12", fields[:1]) && !strings.HasPrefix(fields, "|-") {
			table = append(table, fields)
		}
	}
	assert.Equal(t, []string{
		"| | library | | median | ± | B/op | allocs/op | × admit |",
		"| one | admit | | 11 ns | ∞ | 0 | 0 | |",
		"| | fast | ✗ 1 2 | 11 ns | ∞ | 24 | 1 | ~ |",
		"| | floor | | 1 ns | ∞ | 0 | 0 | 0.091× |",
		"| | **go-limiter** | 1 | 30 ns | ∞ | 1,024 | 3 | **2.73×** |",
		"1. says less",
		"2. is wrong",
	}, table[:7])
}

func TestQuantity(t *testing.T) {
	t.Parallel()
	for want, seconds := range map[string]float64{
		"8.96 ns": 8.957e-9, "45.2 ns": 45.21e-9, "999 ns": 999.4e-9, "1 µs": 999.6e-9, "215 µs": 214.9e-6, "1.5 ms": 1.5e-3, "2 s": 2,
	} {
		assert.Equal(t, want, quantity(seconds, "sec/op"))
	}
	assert.Equal(t, "1,048,576", quantity(1<<20, "B/op"))
	assert.Equal(t, "120 B", quantity(119.6, "B/key"))
}

func TestPlotsAreXML(t *testing.T) {
	t.Parallel()
	all := measured(t, nil)
	for name, plot := range map[string][]byte{"peers": all.drawPeers(), "growth": all.drawGrowth()} {
		require.NotEmpty(t, plot, name)
		assert.NotContains(t, string(plot), "NaN", name)
		d := xml.NewDecoder(strings.NewReader(string(plot)))
		var err error
		for err == nil {
			_, err = d.Token()
		}
		assert.ErrorIs(t, err, io.EOF, name)
	}
	empty := newResults(nil)
	assert.Nil(t, empty.drawPeers())
	assert.Nil(t, empty.drawGrowth())
}
