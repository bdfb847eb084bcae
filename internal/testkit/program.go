package testkit

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// StartProgram starts a service that prints its address in its first line, and returns the
// address. At the end of the test it interrupts the program, which must exit without an error.
func StartProgram(t testing.TB, c *exec.Cmd) (url string) {
	t.Helper()
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	read := make(chan bool)
	t.Cleanup(func() {
		killed := c.Process.Signal(os.Interrupt) != nil && c.Process.Kill() == nil // Windows has no interrupt
		<-read
		if err := c.Wait(); err != nil && !killed {
			t.Errorf("%s: %v", c.Path, err)
		}
	})
	line, err := out.ReadString('\n')
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, out)
	}()
	url = regexp.MustCompile(`http://[0-9.:]+`).FindString(line)
	if url == "" {
		t.Fatalf("%s has not said its address: %q, %v", c.Path, line, err)
	}
	return url
}

// Status returns the status that a caller with an API key gets.
func Status(t testing.TB, url, key string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-API-Key", key)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}
