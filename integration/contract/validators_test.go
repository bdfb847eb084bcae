// Package contract_test holds the OpenAPI documents of package contract against validators of
// others, and the answers of a service against its document.
package contract_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/pb33f/libopenapi"
	"github.com/pb33f/libopenapi-validator/schema_validation" // alone: the rest takes minutes to compile
	"github.com/pb33f/libopenapi/datamodel"
	"github.com/stretchr/testify/require"

	"github.com/admit-go/admit/integration/servers"
)

// documents are OpenAPI documents in JSON, by a name that can be one of a file.
type documents map[string][]byte

// findings are what a validator has against documents, by their names. A document without
// one is valid.
type findings map[string][]string

func (f findings) add(document, format string, args ...any) {
	f[document] = append(f[document], fmt.Sprintf(format, args...))
}

// validators look at documents, each all of them at once: to start a program of npm takes
// longer than to validate.
var validators = map[string]func(*testing.T, documents) findings{
	"kin-openapi": kinOpenAPI,
	"libopenapi":  libOpenAPI,
	"redocly":     redocly,
	"spectral":    spectral,
}

// requireValid fails the test for any finding of any validator, warnings included.
func requireValid(t *testing.T, docs documents) {
	t.Helper()
	for name, validate := range validators {
		t.Run(name, func(t *testing.T) { require.Empty(t, validate(t, docs)) })
	}
}

func kinOpenAPI(t *testing.T, docs documents) findings {
	found := findings{}
	for name, text := range docs {
		doc, err := openapi3.NewLoader().LoadFromData(text)
		if err == nil {
			err = doc.Validate(t.Context(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaFormatValidation(), openapi3.EnableSchemaPatternValidation())
		}
		if err != nil {
			found.add(name, "%v", err)
		}
	}
	return found
}

func libOpenAPI(_ *testing.T, docs documents) findings {
	found := findings{}
	for name, text := range docs {
		doc, err := libopenapi.NewDocumentWithConfiguration(text, &datamodel.DocumentConfiguration{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			found.add(name, "%v", err)
			continue
		}
		if _, err := doc.BuildV3Model(); err != nil {
			found.add(name, "%v", err)
			continue
		}
		_, faults := schema_validation.ValidateOpenAPIDocument(doc)
		for _, fault := range faults {
			found.add(name, "%s: %s", fault.Message, fault.Reason)
			for _, s := range fault.SchemaValidationErrors {
				found.add(name, "%s: %s", s.FieldPath, s.Reason)
			}
		}
	}
	return found
}

func redocly(t *testing.T, docs documents) findings {
	out := npm(t, docs, "redocly", "lint", "--config", "redocly.yaml", "--format", "json", "--max-problems", "1000")
	found := findings{}
	for reports := json.NewDecoder(bytes.NewReader(out)); ; { // one for each document
		var report struct {
			Totals   *struct{ Errors, Warnings int }
			Problems []struct {
				RuleID, Message string
				Location        []struct {
					Source  struct{ Ref string }
					Pointer string
				}
			}
		}
		if err := reports.Decode(&report); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err, "%s", out)
		}
		require.NotNil(t, report.Totals)
		require.Len(t, report.Problems, report.Totals.Errors+report.Totals.Warnings)
		for _, p := range report.Problems {
			require.NotEmpty(t, p.Location)
			found.add(documentOf(p.Location[0].Source.Ref), "%s at %s: %s", p.RuleID, p.Location[0].Pointer, p.Message)
		}
	}
	return found
}

func spectral(t *testing.T, docs documents) findings {
	out := npm(t, docs, "spectral", "lint", "--ruleset", "spectral.yaml", "--fail-severity", "hint", "--format", "json", "--quiet")
	var report []struct {
		Code, Message, Source string
		Path                  []string
	}
	// Where nothing is found, a sentence follows that says so.
	require.NoError(t, json.NewDecoder(bytes.NewReader(out)).Decode(&report), "%s", out)
	found := findings{}
	for _, p := range report {
		found.add(documentOf(p.Source), "%s at %s: %s", p.Code, strings.Join(p.Path, "/"), p.Message)
	}
	return found
}

// documentOf is the name of the document in a file.
func documentOf(file string) string { return strings.TrimSuffix(filepath.Base(file), ".json") }

// npm lets a program of npm look at documents, and returns what it prints. That it has
// found something is no failure.
func npm(t *testing.T, docs documents, program string, args ...string) []byte {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		servers.Program(t, name)
	}
	installed, err := install()
	if err != nil {
		servers.Missing(t, fmt.Sprintf("%s (%v)", program, err))
	}
	dir := t.TempDir()
	for name, text := range docs {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), text, 0o600))
	}
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		args = append(args, filepath.Join(dir, name+".json"))
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join("node_modules", ".bin", program), args...)
	cmd.Dir = installed
	cmd.Env = append(os.Environ(), "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true", "NO_COLOR=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 1, exit.ExitCode(), "%s", stderr.Bytes()) // there are findings
	}
	return stdout.Bytes()
}

// install puts the programs of npm into a folder, once.
var install = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "admit-openapi-")
	if err != nil {
		return "", err
	}
	installed = dir
	if err := os.CopyFS(dir, os.DirFS("npm")); err != nil {
		return "", err
	}
	ci := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline")
	ci.Dir = dir
	if out, err := ci.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w, %s", err, out)
	}
	return dir, nil
})

var installed string // by install; to be removed

func TestMain(m *testing.M) {
	code := m.Run()
	if installed != "" {
		_ = os.RemoveAll(installed)
	}
	os.Exit(code)
}
