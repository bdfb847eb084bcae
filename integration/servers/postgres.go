package servers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"
)

// Postgres is a PostgreSQL server of a test's own, on 127.0.0.1.
type Postgres struct {
	programs struct{ initdb, postgres string }
	dir      string
	port     int
	guard    *exec.Cmd
	lifeline io.Closer
}

var postgresFolders = []string{"/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/pgsql-*/bin"}

// StartPostgres starts a server, which stops at the end of the test. Without the
// programs the test is skipped: see Missing.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	p := newPostgres(t)
	require.NoError(t, p.init())
	t.Cleanup(func() {
		p.Stop()
		_ = os.RemoveAll(p.dir)
	})
	require.NoError(t, p.start(""))
	return p
}

// HasPostgres reports whether there are the programs to start a server.
func HasPostgres() bool {
	p := &Postgres{}
	p.find()
	return p.programs.initdb != "" && p.programs.postgres != ""
}

// LaunchPostgres is StartPostgres for a program: the server stops with it, or at Close.
func LaunchPostgres() (*Postgres, error) {
	p := &Postgres{}
	p.find()
	if err := p.init(); err != nil {
		return nil, err
	}
	return p, p.start(p.dir)
}

// Close stops the server for good.
func (p *Postgres) Close() {
	p.Stop()
	_ = os.RemoveAll(p.dir)
}

// PostgresDatabase returns the URL of a new database, on a server that all tests of the
// process share.
func PostgresDatabase(t testing.TB) string {
	t.Helper()
	newPostgres(t) // skips the test if need be
	p, err := sharedPostgres()
	require.NoError(t, err)
	name := "test" + strconv.Itoa(int(databases.Add(1)))
	db, err := sql.Open("pgx", p.URL())
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	return p.url(name)
}

var (
	databases      atomic.Int64
	sharedPostgres = sync.OnceValues(func() (*Postgres, error) {
		p := &Postgres{}
		p.find()
		if err := p.init(); err != nil {
			return nil, err
		}
		return p, p.start(p.dir)
	})
)

func newPostgres(t testing.TB) *Postgres {
	t.Helper()
	p := &Postgres{}
	if p.find(); p.programs.initdb == "" || p.programs.postgres == "" {
		Missing(t, "PostgreSQL (initdb and postgres)")
	}
	return p
}

func (p *Postgres) find() {
	p.programs.initdb = find("initdb", postgresFolders...)
	p.programs.postgres = find("postgres", postgresFolders...)
}

// URL is that of the database postgres.
func (p *Postgres) URL() string { return p.url("postgres") }

func (p *Postgres) url(database string) string {
	return fmt.Sprintf("postgres://admit@127.0.0.1:%d/%s?sslmode=disable", p.port, database)
}

// Stop ends the server at once, as a crash does: clients are cut off.
func (p *Postgres) Stop() {
	if p.guard != nil {
		_ = p.lifeline.Close()
		_ = p.guard.Wait()
		p.guard = nil
	}
}

// Start starts a server again that was stopped, with the data that it had.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	require.NoError(t, p.start(""))
}

// Hang makes the server answer nobody, with all connections as they are, until Resume.
func (p *Postgres) Hang(t testing.TB) {
	t.Helper()
	p.signal(t, "-STOP")
}

// Resume ends Hang.
func (p *Postgres) Resume(t testing.TB) {
	t.Helper()
	p.signal(t, "-CONT")
}

// signal is for the server, which then makes no new processes, and for those that it has.
func (p *Postgres) signal(t testing.TB, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "data", "postmaster.pid"))
	require.NoError(t, err)
	server, _, _ := strings.Cut(string(text), "\n")
	require.NoError(t, exec.Command("kill", name, server).Run())
	list, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	require.NoError(t, err)
	for _, line := range strings.Split(string(list), "\n") {
		if ids := strings.Fields(line); len(ids) == 2 && ids[1] == server {
			_ = exec.Command("kill", name, ids[0]).Run() // it may have ended
		}
	}
}

func (p *Postgres) init() error {
	dir, err := os.MkdirTemp("", "admit-postgres-")
	if err != nil {
		return err
	}
	p.dir = dir
	if p.port, err = freePort(); err != nil {
		return err
	}
	cmd := exec.Command(p.programs.initdb, "-D", filepath.Join(dir, "data"), "-U", "admit", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
	if err := asOther(cmd, dir); err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// start waits until the server answers. SIGQUIT is an immediate shutdown.
func (p *Postgres) start(remove string) error {
	cmd := guarded("QUIT", remove, p.programs.postgres, "-D", filepath.Join(p.dir, "data"), "-p", strconv.Itoa(p.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+p.dir, "-c", "fsync=off", "-c", "max_connections=60")
	if err := asOther(cmd, p.dir); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if p.lifeline, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.guard = cmd

	db, err := sql.Open("pgx", p.URL())
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			p.Stop()
			return errors.Join(fmt.Errorf("postgres does not answer: %w\n%s", err, text))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
