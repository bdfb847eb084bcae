package admittest

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Golden fails the test unless the file at path has exactly the text got, such as the
// Markdown of a contract: a change of it is then seen where the file is reviewed. With
// ADMIT_UPDATE=1 in the environment it writes the file instead. Lines that end in CRLF, as git
// makes them on Windows, are the same.
func Golden(t testing.TB, path string, got []byte) {
	t.Helper()
	if os.Getenv("ADMIT_UPDATE") == "1" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Errorf("admittest: Golden: %v", err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("admittest: Golden: %v; write the file with ADMIT_UPDATE=1", err)
		return
	}
	if bytes.Equal(want, got) {
		return
	}
	wants, gots := lines(want), lines(got)
	for i := range max(len(wants), len(gots)) {
		if w, g := lineOf(wants, i), lineOf(gots, i); w != g {
			t.Errorf("admittest: Golden: %s is another text from line %d on; if that is meant, write it with ADMIT_UPDATE=1\nfile: %s\n got: %s", path, i+1, w, g)
			return
		}
	}
}

func lines(text []byte) []string {
	return strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
}

// lineOf quotes a line, so that the end is none.
func lineOf(all []string, i int) string {
	if i >= len(all) {
		return "its end"
	}
	return strconv.Quote(all[i])
}
