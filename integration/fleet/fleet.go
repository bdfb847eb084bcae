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
	"sync/atomic"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/admit-go/admit"
	example "github.com/admit-go/admit/example/service"
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
	calls    atomic.Int64 // that have gone to Redis
	closers  []func()
	size     int
}

// service is what all replicas serve.
type service interface {
	// replica returns the handler of one, with its keys.
	replica(ctx context.Context, f *fleet, i int, keys admit.KeyStore) (http.Handler, error)
}

// caller is a key that sends requests.
type caller struct {
	name, plan, token string
	rate              int // a second; more than the plan allows
}

// silence is for what go-redis prints of each connection that fails.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

func startFleet(ctx context.Context, replicas int, serves service, callers ...caller) (f *fleet, err error) {
	redis.SetLogger(silence{})
	f = &fleet{callers: callers, size: replicas}
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
		if err := f.startReplica(ctx, i, open, serves); err != nil {
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

// startReplica starts a service as one process of many would.
func (f *fleet) startReplica(ctx context.Context, i int, open func() (*sqlkeys.Store, error), serves service) error {
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

	handler, err := serves.replica(ctx, f, i, cache)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := example.NewServer(handler, quiet)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "fleet: replica", i, err)
		}
	}()
	f.closers = append(f.closers, func() { _ = server.Close() })
	f.urls = append(f.urls, "http://"+listener.Addr().String()+"/v1/prices/btc-usd")
	return nil
}

// newLimitStore returns the limits in Redis, with connections of its own.
func (f *fleet) newLimitStore() (*redislimit.Store, error) {
	client := redis.NewClient(&redis.Options{Addr: f.redis.Addr, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1})
	f.closers = append(f.closers, func() { _ = client.Close() })
	script := redis.NewScript(redislimit.Script)
	return redislimit.New(func(ctx context.Context, keys []string, args ...any) (any, error) {
		f.calls.Add(1)
		return script.Run(ctx, client, keys, args...).Result()
	}, redislimit.Config{Direct: true})
}

// quiet is a log that nobody reads.
var quiet = slog.New(slog.DiscardHandler)

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
