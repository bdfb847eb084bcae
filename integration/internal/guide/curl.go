package guide

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/servers"
)

// Address is where a service of a page listens, as its commands have it.
const Address = "http://localhost:8080"

// Run runs the blocks of docs/NAME.md that call curl, in their order and in the folder
// dir, with the URL of a server in the place of Address. A block of http that follows is what
// curl -i has to print: the status, the headers that the page shows, and the body. A request
// id that the server makes may be any. Env has variables of the commands: "TOKEN=acme_...".
func Run(t *testing.T, name, url, dir string, env ...string) {
	t.Helper()
	servers.Program(t, "curl")
	output, ran := "", 0
	for _, block := range read(t, name) {
		switch {
		case block.Lang == "sh" && strings.Contains(block.Text, "curl "):
			command := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(block.Text, Address, url))
			command.Dir, command.Env = dir, append(os.Environ(), env...)
			printed, err := command.Output()
			require.NoError(t, err, "docs/%s.md:%d: %s", name, block.Line, printed)
			output = string(printed)
			ran++
		case block.Lang == "http":
			compare(t, parse(block.Text), parse(output), block.Line)
			output = ""
		}
	}
	require.NotZero(t, ran)
}

// response is one as curl -i prints it.
type response struct {
	status  string
	headers []string // lines, with names in small letters
	body    string
}

// parse leaves out responses that only say that another follows.
func parse(text string) response {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	head, body, _ := strings.Cut(text, "\n\n")
	for strings.HasPrefix(head, "HTTP/1.1 100") {
		head, body, _ = strings.Cut(body, "\n\n")
	}
	lines := strings.Split(strings.TrimSpace(head), "\n")
	r := response{status: lines[0], body: strings.TrimSpace(body)}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		r.headers = append(r.headers, strings.ToLower(name)+":"+value)
	}
	return r
}

var requestID = regexp.MustCompile(`\b[0-9a-f]{32}\b`)

func compare(t *testing.T, shown, got response, line int) {
	t.Helper()
	anyID := func(s string) string { return requestID.ReplaceAllString(s, "ID") }
	assert.Equal(t, shown.status, got.status, "line %d: %s", line, got.body)
	var headers []string
	for _, header := range got.headers {
		headers = append(headers, anyID(header))
	}
	for _, header := range shown.headers {
		assert.Contains(t, headers, anyID(header), "line %d", line)
	}
	if json.Valid([]byte(got.body)) {
		assert.JSONEq(t, anyID(got.body), anyID(shown.body), "line %d", line)
		return
	}
	assert.Equal(t, anyID(got.body), anyID(shown.body), "line %d", line)
}
