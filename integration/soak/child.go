package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/example/service"
)

// The service is this same program with this variable, which names the key file. It
// prints its address, answers each line on its standard input with its state, and ends
// with that input: also when its parent is killed.
const childVariable = "ADMIT_SOAK_KEYS"

// idleTimeout is shorter than the example's, so that connections meet it in a short run.
// The other settings of the server are the example's.
const (
	idleTimeout       = 5 * time.Second
	readHeaderTimeout = 5 * time.Second // as the example has it: what slow headers are held to
)

// state is what must not grow.
type state struct {
	Goroutines int    `json:"goroutines"`
	Files      int    `json:"files"` // descriptors; -1 where they cannot be counted
	Heap       uint64 `json:"heap"`  // in use after a collection

	Requests uint64 `json:"requests"` // so far, which may grow: a line of the access log is for each
}

func (s state) String() string {
	return fmt.Sprintf("%d goroutines, %d file descriptors, %.2f MiB of heap", s.Goroutines, s.Files, float64(s.Heap)/(1<<20))
}

// heapTolerance is what the service may hold in the end that it did not after the
// warm-up. The example's order book, full, has 10,000 ids, of about 60 bytes with their
// place in the map: 0.6 MiB. Buckets of callers that were seen within the last minute,
// and pools of buffers that a collection has not yet emptied, are much less.
const heapTolerance = 1 << 20

// exceeds reports what there is more of than at a level. Goroutines and descriptors have
// no tolerance: no client is there any more.
func (s state) exceeds(level state) error {
	var faults []error
	if s.Goroutines > level.Goroutines {
		faults = append(faults, fmt.Errorf("%d goroutines are left, %d before", s.Goroutines, level.Goroutines))
	}
	if s.Files > level.Files {
		faults = append(faults, fmt.Errorf("%d file descriptors are left, %d before", s.Files, level.Files))
	}
	if s.Heap > level.Heap+heapTolerance {
		faults = append(faults, fmt.Errorf("%d bytes of heap are left, %d before, and %d may be held in addition", s.Heap, level.Heap, heapTolerance))
	}
	return errors.Join(faults...)
}

// serveAsChild reports whether this process is the service; then it has ended.
func serveAsChild() bool {
	path := os.Getenv(childVariable)
	if path == "" {
		return false
	}
	if err := serve(path); err != nil {
		fmt.Fprintln(os.Stderr, "soak: service:", err)
		os.Exit(1)
	}
	return true
}

func serve(path string) error {
	signal.Ignore(os.Interrupt) // of a terminal: the parent ends the run
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	slog.SetDefault(logger)
	keys, err := admit.OpenKeyFile(path)
	if err != nil {
		return err
	}
	defer keys.Close()
	api, err := service.New(ctx, service.Config{Keys: keys, Logger: logger})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var requests atomic.Uint64
	observed := admit.AccessLog(logger)(api)
	server := service.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		observed.ServeHTTP(w, r)
	}), logger)
	server.IdleTimeout = idleTimeout
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	fmt.Println(listener.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := json.NewEncoder(os.Stdout).Encode(measure(&requests)); err != nil {
			return err
		}
	}
	stopping, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	cancel() // streams end
	if err := server.Shutdown(stopping); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return api.Quotas.Close(stopping)
}

func measure(requests *atomic.Uint64) state {
	for range 3 { // pools are emptied by the second
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := state{Goroutines: runtime.NumGoroutine(), Files: -1, Heap: m.HeapAlloc, Requests: requests.Load()}
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		if files, err := os.ReadDir(dir); err == nil {
			s.Files = len(files)
			break
		}
	}
	return s
}

// child is the process of the service as its parent sees it.
type child struct {
	addr    string
	process *exec.Cmd
	mu      sync.Mutex // one question at a time
	ask     io.WriteCloser
	answers *bufio.Reader
	logRead chan struct{} // closed when the log has ended
	end     func() error
}

func startChild(keys string, t *tally) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{process: exec.Command(self), logRead: make(chan struct{})}
	c.process.Env = append(os.Environ(), childVariable+"="+keys)
	if c.ask, err = c.process.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := c.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	log, err := c.process.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.process.Start(); err != nil {
		return nil, err
	}
	c.answers = bufio.NewReader(answers)
	go func() {
		defer close(c.logRead)
		t.readLog(log)
	}()
	c.end = sync.OnceValue(func() error {
		_ = c.ask.Close()
		kill := time.AfterFunc(20*time.Second, func() { _ = c.process.Process.Kill() })
		defer kill.Stop()
		<-c.logRead
		return c.process.Wait()
	})
	addr, err := c.answers.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the service did not start: %w", errors.Join(err, c.stop()))
	}
	c.addr = strings.TrimSpace(addr)
	return c, nil
}

func (c *child) measure() (s state, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := io.WriteString(c.ask, "\n"); err != nil {
		return s, err
	}
	line, err := c.answers.ReadBytes('\n')
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(line, &s)
}

// stop lets the service end by itself.
func (c *child) stop() error { return c.end() }
