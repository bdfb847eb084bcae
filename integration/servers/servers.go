// Package servers starts real servers for tests, from the programs that are installed.
package servers

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Missing skips the test, or fails it where ADMIT_REQUIRE_SERVICES=1 says that
// everything must be there.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("ADMIT_REQUIRE_SERVICES") == "1" {
		t.Fatalf("%s is not installed, and ADMIT_REQUIRE_SERVICES=1", what)
	}
	t.Skipf("%s is not installed", what)
}

// Program returns the path of a program, or ends the test as Missing does.
func Program(t testing.TB, name string) string {
	t.Helper()
	path := find(name)
	if path == "" {
		Missing(t, name)
	}
	return path
}

// find returns the path of a program: one of PATH, else one in a folder of the patterns.
func find(program string, folders ...string) string {
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, folder := range folders {
		found, _ := filepath.Glob(filepath.Join(folder, program))
		if len(found) > 0 {
			return found[len(found)-1]
		}
	}
	return ""
}

// freePort returns a port of 127.0.0.1 that nobody listens on at the moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// guarded returns a command that runs a program for as long as this process lives, and
// then removes a folder, if one is given. However the tests end, their end of the pipe
// closes, so that the program gets the signal, also one that hangs.
func guarded(signal, folder, program string, args ...string) *exec.Cmd {
	const script = `signal=$1 folder=$2; shift 2; trap "" INT
"$@" & pid=$!
cat >/dev/null
kill -$signal $pid 2>/dev/null; kill -CONT $pid 2>/dev/null; wait $pid
[ -z "$folder" ] || rm -rf "$folder"`
	return exec.Command("/bin/sh", append([]string{"-c", script, "guarded", signal, folder, program}, args...)...)
}
