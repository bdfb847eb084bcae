// Package machine says what figures depend on.
package machine

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// String is the processors, the system and the version of Go.
func String() string {
	return fmt.Sprintf("%d × %s, %s/%s, %s", runtime.NumCPU(), processor(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// Modules are those of this program, with their versions, whose path has one of the parts
// in it.
func Modules(parts ...string) []string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var all []string
	for _, d := range build.Deps {
		for _, part := range parts {
			if strings.Contains(d.Path, part) {
				all = append(all, d.Path+" "+d.Version)
				break
			}
		}
	}
	return all
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.SplitSeq(string(info), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// Load is how many processes have wanted to run in the last minute, or nothing where the system
// does not tell.
func Load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	average, _, _ := strings.Cut(string(text), " ")
	return average
}
