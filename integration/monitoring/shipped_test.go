package monitoring_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/servers"
)

const shipped = "../../example/monitoring"

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(shipped, name))
	require.NoError(t, err)
	return string(text)
}

// The rules are tested with the windows that they are shipped with too, against what clients
// can do alone.
func TestPromtool(t *testing.T) {
	t.Parallel()
	program := servers.Program(t, "promtool")
	rules, err := filepath.Abs(filepath.Join(shipped, "rules.yml"))
	require.NoError(t, err)
	tests, err := os.ReadFile("testdata/rules_test.yml")
	require.NoError(t, err)
	require.Contains(t, string(tests), "[RULES]")
	file := filepath.Join(t.TempDir(), "rules_test.yml")
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(tests), "[RULES]", "["+strconv.Quote(rules)+"]", 1)), 0o600))
	for _, args := range [][]string{
		{"check", "config", filepath.Join(shipped, "prometheus.yml")},
		{"check", "rules", rules},
		{"test", "rules", file},
	} {
		output, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		assert.NoError(t, err, "%s", output)
	}
}

// Who is called at night finds each alert in the README.
func TestReadmeHasEachAlert(t *testing.T) {
	t.Parallel()
	var alerts, rows []string
	for _, m := range regexp.MustCompile(`(?s)- alert: (\w+).*?severity: (\w+)`).FindAllStringSubmatch(read(t, "rules.yml"), -1) {
		alerts = append(alerts, m[1]+", "+m[2])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)`, (\\w+) \\|").FindAllStringSubmatch(read(t, "README.md"), -1) {
		rows = append(rows, m[1]+", "+m[2])
	}
	require.NotEmpty(t, alerts)
	assert.Equal(t, alerts, rows)
}

// A window with fewer scrapes has no rate when one fails.
func TestWindowsHoldFourScrapes(t *testing.T) {
	t.Parallel()
	every := duration(t, scrapeInterval.FindStringSubmatch(read(t, "prometheus.yml"))[1])
	for _, file := range []string{"rules.yml", "dashboard.json"} {
		text := read(t, file)
		for _, m := range window.FindAllStringSubmatch(text, -1) {
			assert.GreaterOrEqual(t, duration(t, m[1]), 4*every, "%s: %s", file, m[0])
		}
	}
	assert.NotEmpty(t, window.FindAllString(read(t, "rules.yml"), -1))
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := model.ParseDuration(text)
	require.NoError(t, err)
	return time.Duration(d)
}

// The types are those from which Grafana's own are made: it takes the file, and no member of
// it is misspelt.
func TestGrafanaTakesTheDashboard(t *testing.T) {
	t.Parallel()
	text := read(t, "dashboard.json")
	cog.NewRuntime().RegisterPanelcfgVariant(timeseries.VariantConfig())
	cog.NewRuntime().RegisterDataqueryVariant(prometheus.VariantConfig())
	var d dashboard.Dashboard //lint:ignore SA1019 its successor is another form of file, which fewer Grafanas import
	if err := d.UnmarshalJSONStrict([]byte(text)); err != nil {
		assert.Empty(t, err.Error())
	}
	require.NoError(t, d.Validate())
	assert.Nil(t, d.Id, "an id is of one Grafana")
	for _, m := range regexp.MustCompile(`"uid": *"([^"]*)"`).FindAllStringSubmatch(text, -1) {
		assert.Equal(t, "${datasource}", m[1])
	}

	taken := map[[2]int]string{} // of the grid
	for _, p := range panels(t) {
		assert.NotEmpty(t, p.Description, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Less(t, x, 24, p.Title)
				require.Empty(t, taken[[2]int{x, y}], "%s is over it", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// panel is one of the dashboard.
type panel struct {
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct{ Expr, LegendFormat string }
}

// panels are those with queries.
func panels(t *testing.T) []panel {
	t.Helper()
	var d struct{ Panels []panel }
	require.NoError(t, json.Unmarshal([]byte(read(t, "dashboard.json")), &d))
	var all []panel
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Targets, p.Title)
		all = append(all, p)
	}
	require.NotEmpty(t, all)
	return all
}

// variables are those of the dashboard with their queries, and what they are where All is
// chosen.
func variables(t *testing.T) map[string]variable {
	t.Helper()
	var d struct {
		Templating struct {
			List []struct {
				Name, Type, AllValue, Definition string
				Query                            json.RawMessage
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, "dashboard.json")), &d))
	all := map[string]variable{}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			require.Contains(t, string(v.Query), strings.Trim(string(must(json.Marshal(v.Definition))), `"`), v.Name)
			parts := labelValues.FindStringSubmatch(v.Definition)
			require.NotNil(t, parts, v.Definition)
			all[v.Name] = variable{all: v.AllValue, metric: parts[1], label: parts[2]}
		}
	}
	require.NotEmpty(t, all)
	return all
}

type variable struct{ all, metric, label string }

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
