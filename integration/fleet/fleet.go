package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/admit-go/admit"
	"github.com/admit-go/admit/example/service"
	"github.com/admit-go/admit/integration/servers"
	"github.com/admit-go/admit/redislimit"
	"github.com/admit-go/admit/sqlkeys"
)

// fleet is some replicas, and what they share.
type fleet struct {
	redis    *servers.Redis
	database string
	urls     []string
	callers  []caller
	store    storeRecord
	closers  []func()
	size     int
}

// caller is a key that sends requests.
type caller struct {
	name, plan, token string
	rate              int // a second; more than the plan allows
}

// storeRecord is what all replicas note of their limit stores.
type storeRecord struct {
	calls atomic.Int64 // that have gone to Redis
	mu    sync.Mutex
	took  []time.Duration   // since the last row
	used  map[int]time.Time // when each replica has last used Redis
	lost  map[string]int    // decisions of each caller that failed although Redis was there
	quiet bool              // Redis is not there, or has just come back
}

// silence is for what go-redis prints of each connection that fails.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

func startFleet(ctx context.Context, replicas int) (f *fleet, err error) {
	redis.SetLogger(silence{})
	f = &fleet{
		callers: []caller{{name: "free", plan: "free", rate: 200}, {name: "pro", plan: "pro", rate: 150}, {name: "trader", plan: "pro", rate: 150}},
		store:   storeRecord{used: make(map[int]time.Time), lost: make(map[string]int)},
		size:    replicas,
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.redis, err = servers.LaunchRedis(); err != nil {
		return f, err
	}
	f.closers = append(f.closers, f.redis.Close)
	open, err := f.startDatabase()
	if err != nil {
		return f, err
	}
	if err := f.mintKeys(ctx, open); err != nil {
		return f, err
	}
	for i := range replicas {
		if err := f.startReplica(ctx, i, open); err != nil {
			return f, err
		}
	}
	return f, nil
}

// close stops everything in reverse order.
func (f *fleet) close() {
	for i := len(f.closers) - 1; i >= 0; i-- {
		f.closers[i]()
	}
}

// startDatabase returns a function that gives a replica its own connections.
func (f *fleet) startDatabase() (func() (*sqlkeys.Store, error), error) {
	driver, source, dialect := "pgx", "", sqlkeys.PostgreSQL
	if servers.HasPostgres() {
		server, err := servers.LaunchPostgres()
		if err != nil {
			return nil, err
		}
		f.closers = append(f.closers, server.Close)
		source = server.URL()
	} else {
		dir, err := os.MkdirTemp("", "admit-fleet-")
		if err != nil {
			return nil, err
		}
		f.closers = append(f.closers, func() { _ = os.RemoveAll(dir) })
		driver, dialect = "sqlite", sqlkeys.SQLite
		source = "file:" + filepath.Join(dir, "keys.db") + "?_pragma=busy_timeout(5000)"
	}
	f.database = dialect.String()
	return func() (*sqlkeys.Store, error) {
		db, err := sql.Open(driver, source)
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(4)
		f.closers = append(f.closers, func() { _ = db.Close() })
		store, err := sqlkeys.New(sqlkeys.Config{DB: db, Dialect: dialect})
		if err != nil {
			return nil, err
		}
		f.closers = append(f.closers, func() { _ = store.Close() })
		if f.urls == nil && f.callers[0].token == "" {
			_, err = db.Exec(sqlkeys.Schema(dialect))
		}
		return store, err
	}, nil
}

func (f *fleet) mintKeys(ctx context.Context, open func() (*sqlkeys.Store, error)) error {
	store, err := open()
	if err != nil {
		return err
	}
	for i := range f.callers {
		c := &f.callers[i]
		token, digest, _ := admit.Mint("demo_" + c.name)
		c.token = token
		if err := store.Insert(ctx, digest, &admit.Key{ID: c.name, Owner: c.name, Plan: c.plan}); err != nil {
			return err
		}
	}
	return nil
}

// startReplica starts the service of the example as one process of many would.
func (f *fleet) startReplica(ctx context.Context, i int, open func() (*sqlkeys.Store, error)) error {
	keys, err := open()
	if err != nil {
		return err
	}
	cache, err := admit.NewKeyCache(keys, admit.KeyCacheConfig{TTL: time.Minute, StaleFor: time.Hour})
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		keys.Watch(watching, cache.Forget)
	}()
	f.closers = append(f.closers, func() { stop(); <-watched })

	limits, err := f.newLimitStore(i)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	api, err := service.New(ctx, service.Config{Keys: cache, Limits: limits, Replicas: f.size, Logger: logger})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := service.NewServer(api, logger)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "fleet: replica", i, err)
		}
	}()
	f.closers = append(f.closers, func() { _ = server.Close() })
	f.urls = append(f.urls, "http://"+listener.Addr().String()+"/v1/prices/btc-usd")
	return nil
}

// limitStore is that of a replica, which notes how long its decisions take.
type limitStore struct {
	*redislimit.Store
	replica int
	record  *storeRecord
}

func (f *fleet) newLimitStore(replica int) (*limitStore, error) {
	client := redis.NewClient(&redis.Options{Addr: f.redis.Addr, ContextTimeoutEnabled: true, MaxRetries: -1})
	f.closers = append(f.closers, func() { _ = client.Close() })
	script := redis.NewScript(redislimit.Script)
	store, err := redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		f.store.calls.Add(1)
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Direct: true})
	return &limitStore{store, replica, &f.store}, err
}

func (s *limitStore) Take(ctx context.Context, key string, cost int, limits []admit.Limit) (admit.Decision, error) {
	began := time.Now()
	d, err := s.Store.Take(ctx, key, cost, limits)
	took := time.Since(began)
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	s.record.took = append(s.record.took, took)
	if err == nil {
		s.record.used[s.replica] = time.Now()
	} else if !s.record.quiet {
		s.record.lost[key[strings.LastIndexByte(key, ':')+1:]]++
	}
	return d, err
}

// excuse says whether it is known that Redis fails.
func (s *storeRecord) excuse(known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = known
}

func (s *storeRecord) lostBy(caller string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost[caller]
}

// load sends requests of all callers to all replicas in turn, until ctx ends.
func (f *fleet) load(ctx context.Context, log *record) *sync.WaitGroup {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 10 * time.Second}
	const senders = 5 // of a caller
	var turn atomic.Int64
	var sending sync.WaitGroup
	for i, c := range f.callers {
		for range senders {
			sending.Go(func() {
				ticks := time.NewTicker(time.Second * senders / time.Duration(c.rate))
				defer ticks.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-ticks.C:
					}
					url := f.urls[int(turn.Add(1))%len(f.urls)]
					log.answer(i, status(client, url, c.token))
				}
			})
		}
	}
	return &sending
}

// status is that of the answer, or 0 where there is none.
func status(client *http.Client, url, token string) int {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	r.Header.Set("X-API-Key", token)
	res, err := client.Do(r)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}
