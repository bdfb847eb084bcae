package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/elnormous/contenttype"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/httprate"
	"github.com/justinas/alice"

	"github.com/admit-go/admit"
)

// contestant is what stands around the handler, in a server of its own.
type contestant struct {
	name, about string
	wrap        func(http.Handler) http.Handler
	does        []string // the cases of check.go in which it does what is asked
}

// The first is what the others are compared with.
var contestants = []contestant{
	{"bare", "the handler", func(h http.Handler) http.Handler { return h }, nil},
	{"policy", "admit.Policy with all but timeouts", policy(admit.Policy{}), everything},
	{"policy-like-peers", "admit.Policy with what the peers have, without Timeout", policyLikePeers(admit.Policy{}), likePeersDo},
	{
		"policy-timeouts", "admit.Policy with BodyTimeout and Timeout",
		policy(admit.Policy{
			BodyTimeout: admit.BodyTimeout{Grace: 5 * time.Second, MinRate: 1 << 10},
			Timeout:     10 * time.Second,
		}), everything,
	},
	{
		"policy-like-peers-timeout", "admit.Policy with what the peers have, and Timeout",
		policyLikePeers(admit.Policy{Timeout: 10 * time.Second}), likePeersDo,
	},
	{"peers", "key + httprate + chi AllowContentType + elnormous Accept + chi Timeout", peers(middleware.Timeout(10 * time.Second)), peersDo},
	{
		"peers-timeouts", "the same with http.TimeoutHandler",
		peers(func(h http.Handler) http.Handler { return http.TimeoutHandler(h, 10*time.Second, "") }), peersDo,
	},
}

// handler does as little as a handler can that reads a body and answers: whatever else
// it did would hide what stands around it.
var handler http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answerTo(body))
}

func answerTo(body []byte) []byte {
	answer := make([]byte, 0, 128)
	answer = append(answer, `{"result":"success","data":`...)
	answer = append(answer, body...)
	return append(answer, '}')
}

// The keys that each server knows. All but three are there to be looked past.
const keyCount = 1000

func token(i int) string { return fmt.Sprintf("load_%035d", i) }

const (
	goodKey      = iota
	scopelessKey // may not write orders
	freeKey      // is on a plan below
)

func keyOf(i int) *admit.Key {
	k := &admit.Key{ID: fmt.Sprint("k", i), Plan: "pro", Scopes: []string{"orders:write"}}
	switch i {
	case scopelessKey:
		k.Scopes = nil
	case freeKey:
		k.Plan = "free"
	}
	return k
}

// No limit is ever reached: what is measured is the way in.
const requests = 1e9

// policy has all that a Policy can have, and the timeouts of base.
func policy(base admit.Policy) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		p := base
		auth, err1 := newAuth()
		plans, err2 := admit.NewPlans(
			admit.Plan{Name: "free", Limits: []admit.Limit{admit.PerMinute(requests)}},
			admit.Plan{
				Name: "pro", Includes: "free", Features: []string{"orders"},
				Limits: []admit.Limit{admit.PerSecond(requests), admit.PerMinute(requests)},
			})
		limiter, err3 := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerSecond(requests)}, Plans: plans})
		inFlight, err4 := admit.NewInFlight(admit.InFlightConfig{Max: 10_000})
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			panic(err)
		}
		p.ClientIP = admit.ClientIP("X-Forwarded-For", netip.MustParsePrefix("127.0.0.0/8"))
		p.Errors, p.Maintenance, p.InFlight = new(admit.ErrorWriter), new(admit.Maintenance), inFlight
		p.Methods = []string{http.MethodPost}
		p.Auth, p.Scopes = auth, []string{"orders:write"}
		p.Plans, p.AtLeast, p.Features = plans, "pro", []string{"orders"}
		p.Limiter = limiter
		p.Accept, p.ContentType = []string{"application/json", "text/csv"}, []string{"application/json"}
		p.MaxBody = maxBody
		return p.Wrap(h)
	}
}

const maxBody = 64 << 10

func newAuth() (*admit.Auth, error) {
	keys := admit.KeyMap{}
	for i := range keyCount {
		keys[admit.DigestOf(token(i))] = keyOf(i)
	}
	return admit.NewAuth(admit.AuthConfig{Store: keys})
}

// policyLikePeers has what peers has: one limit, and no plans, scopes or client address.
func policyLikePeers(base admit.Policy) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		p := base
		auth, err1 := newAuth()
		limiter, err2 := admit.NewLimiter(admit.LimiterConfig{Limits: []admit.Limit{admit.PerMinute(requests)}})
		if err := errors.Join(err1, err2); err != nil {
			panic(err)
		}
		p.Auth, p.Limiter = auth, limiter
		p.Accept, p.ContentType = []string{"application/json", "text/csv"}, []string{"application/json"}
		return p.Wrap(h)
	}
}

// peers is what a service would put together without admit.
func peers(timeout func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		keys := map[[sha256.Size]byte]*admit.Key{}
		for i := range keyCount {
			keys[sha256.Sum256([]byte(token(i)))] = keyOf(i)
		}
		types := []contenttype.MediaType{contenttype.NewMediaType("application/json"), contenttype.NewMediaType("text/csv")}
		return alice.New(
			func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
					key := keys[sha256.Sum256([]byte(token))]
					if key == nil {
						http.Error(w, "unknown key", http.StatusUnauthorized)
						return
					}
					next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, key)))
				})
			},
			httprate.LimitBy(requests, time.Minute, func(r *http.Request) (string, error) {
				return r.Context().Value(callerKey{}).(*admit.Key).ID, nil
			}),
			func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, _, err := contenttype.GetAcceptableMediaType(r, types); err != nil {
						http.Error(w, err.Error(), http.StatusNotAcceptable)
						return
					}
					next.ServeHTTP(w, r)
				})
			},
			middleware.AllowContentType("application/json"),
			timeout,
		).Then(h)
	}
}

type callerKey struct{}

// server is a contestant that runs in a process of its own, so that heaps, collectors
// and schedulers are apart.
type server struct {
	url   string
	stop  func()
	child *exec.Cmd
}

// start returns once the server listens.
func start(name, profile string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := exec.Command(self, "-serve", name, "-profile", profile)
	child.Stderr = os.Stderr
	// The server ends when this end of its input is closed, however this process ends.
	stdin, err := child.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := child.Start(); err != nil {
		return nil, err
	}
	s := &server{child: child, stop: func() {
		_ = stdin.Close()
		_ = child.Wait()
	}}
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("the server has not begun: %w", err)
	}
	s.url = "http://" + strings.TrimSpace(address) + path
	return s, nil
}

// load measures the server once.
func (s *server) load(ctx context.Context, l load, folder string, lasts time.Duration) (sample, error) {
	before := cpuOf(s.child.Process.Pid)
	seen, err := l.run(ctx, folder, s.url, lasts)
	if used := cpuOf(s.child.Process.Pid) - before; err == nil && used > 0 {
		seen.cpu = time.Duration(float64(used) / (seen.perSecond * lasts.Seconds()))
	}
	return seen, err
}

// cpuOf returns the processor time that a process has used, where Linux tells it.
func cpuOf(pid int) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return parseStat(string(stat))
}

// parseStat adds the 14th and 15th field of a process's stat, in hundredths of a second.
// The second is the program's name, which may have anything in it.
func parseStat(stat string) time.Duration {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// serve is what the process of start does: it prints its address, and serves HTTP/1.1,
// and HTTP/2 without TLS, until its input ends.
func serve(name, profile string, stdin io.Reader, stdout io.Writer) error {
	for _, c := range contestants {
		if c.name != name {
			continue
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		server := newServer(c.wrap(handler))
		defer server.Close()
		if profile != "" {
			file, err := os.Create(profile)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := pprof.StartCPUProfile(file); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
		}
		go func() { _ = server.Serve(listener) }()
		fmt.Fprintln(stdout, listener.Addr())
		_, err = io.Copy(io.Discard, stdin)
		return err
	}
	return cannotBegin{fmt.Errorf("there is no server %q", name)}
}

func newServer(h http.Handler) *http.Server {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}
