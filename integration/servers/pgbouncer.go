package servers

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// StartPgBouncer starts a PgBouncer in transaction mode between its clients and a database,
// with a number of connections to that, and returns the URL for the clients. It stops at the
// end of the test. Without the program the test is skipped: see Missing.
func StartPgBouncer(t testing.TB, database string, conns int) string {
	t.Helper()
	program := find("pgbouncer", "/usr/sbin")
	if program == "" {
		Missing(t, "pgbouncer")
	}
	to, err := url.Parse(database)
	require.NoError(t, err)
	port, err := freePort()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "admit-pgbouncer-")
	require.NoError(t, err)
	config := fmt.Sprintf(`[databases]
* = host=%s port=%s user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = 500
`, to.Hostname(), to.Port(), to.User.Username(), port, conns)
	file := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o644))

	cmd := guarded("TERM", dir, program, file)
	require.NoError(t, asOther(cmd, dir)) // it refuses to be root
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	lifeline, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = lifeline.Close()
		_ = cmd.Wait()
	})

	to.Host = "127.0.0.1:" + strconv.Itoa(port)
	// What PgBouncer before 1.21 needs of every client: it knows no prepared statement.
	db, err := sql.Open("pgx", to.String()+"&default_query_exec_mode=simple_protocol")
	require.NoError(t, err)
	defer db.Close()
	if err := await(func(ctx context.Context) error { return db.PingContext(ctx) }); err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("pgbouncer does not answer: %v\n%s", err, text)
	}
	return to.String()
}
