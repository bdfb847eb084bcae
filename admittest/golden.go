package admittest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Golden fails the test unless the file at path has exactly the text got, such as the Markdown
// of a contract. So a change of the text is seen in the review of the file. With ADMIT_UPDATE=1
// in the environment, Golden writes the file instead, and makes its folder. CRLF in the file, as
// git writes it on Windows, counts as LF.
func Golden(t testing.TB, path string, got []byte) {
	t.Helper()
	if os.Getenv("ADMIT_UPDATE") == "1" {
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, got, 0o644)
		}
		if err != nil {
			t.Errorf("admittest: Golden: %v", err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("admittest: Golden: %v; run the test with ADMIT_UPDATE=1 to write the file", err)
		return
	}
	if bytes.Equal(want, got) {
		return
	}
	wants, gots := lines(want), lines(got)
	for i := range max(len(wants), len(gots)) {
		if w, g := lineOf(wants, i), lineOf(gots, i); w != g {
			t.Errorf("admittest: Golden: %s differs from line %d on; if that is intended, run the test with ADMIT_UPDATE=1 to write it\nfile: %s\n got: %s", path, i+1, w, g)
			return
		}
	}
}

func lines(text []byte) []string {
	return strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
}

// lineOf returns a line in quotes, or that there is none.
func lineOf(all []string, i int) string {
	if i >= len(all) {
		return "end of the text"
	}
	return strconv.Quote(all[i])
}
