package admit_test

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// The tests wait more than they work: 16 at once are no strain, also where there are fewer
// processors. Who wants another number says so by -parallel.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("16")
	}
	os.Exit(m.Run())
}
