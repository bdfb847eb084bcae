package main_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The table of an earlier version is good for keys without networks, limits and quotas, and is
// brought up by what the error names.
func TestOldTable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	keys := "sqlite:" + path
	exec := func(statements string) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		require.NoError(t, err)
		defer db.Close()
		_, err = db.ExecContext(t.Context(), "BEGIN IMMEDIATE; "+statements+"; COMMIT")
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	r := run(t, "keys", "list", "--keys", keys)
	assert.Equal(t, 1, r.code)
	assert.Regexp(t, `\Aadmit: list keys: there is no table admit_keys; create it with the output of .admit keys schema sqlite.: [^\n]*\n\z`, r.stderr)

	exec(`CREATE TABLE admit_keys (digest BLOB NOT NULL PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL DEFAULT '', plan TEXT NOT NULL DEFAULT '',
		scopes TEXT NOT NULL DEFAULT '[]', meta TEXT NOT NULL DEFAULT '{}', not_before INTEGER, expires_at INTEGER, revoked_at INTEGER,
		created_at INTEGER NOT NULL DEFAULT 0, last_used_at INTEGER, changed_at INTEGER NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID`)
	require.Zero(t, run(t, "keys", "mint", "--id", "a", "--keys", keys).code)
	require.Zero(t, run(t, "keys", "update", "a", "--plan", "pro", "--keys", keys).code)
	for _, args := range [][]string{{"mint", "--network", "10.0.0.0/8"}, {"update", "a", "--limit", "minute=1/60s"}, {"update", "a", "--quota", "1/day"}} {
		r = run(t, append(append([]string{"keys"}, args...), "--keys", keys)...)
		assert.Equal(t, 1, r.code)
		assert.Regexp(t, `\Aadmit: [^\n]*upgrade it with the output of .admit keys schema sqlite --from 1.: [^\n]*\n\z`, r.stderr)
	}
	r = feed(t, `{"token":"`+firstToken+`"}`+"\n"+`{"token":"`+secondToken+`","networks":["10.0.0.0/8"]}`, "keys", "import", "--keys", keys)
	assert.Equal(t, 1, r.code)
	assert.Contains(t, r.stderr, "1 imported, 0 already there, 0 in conflict\n1 not processed; run the command again to continue\n")

	r = run(t, "keys", "schema", "sqlite", "--from", "1")
	require.Zero(t, r.code, r.stderr)
	exec(r.stdout)
	require.Zero(t, run(t, "keys", "update", "a", "--network", "10.0.0.0/8", "--keys", keys).code)
	assert.Equal(t, map[string]any{"state": "valid", "plan": "pro", "networks": []any{"10.0.0.0/8"}}, show(t, place{keys: keys}, "a"))

	for _, from := range []string{"0", "2", "-1", "x", ""} {
		assert.Equal(t, 2, run(t, "keys", "schema", "postgresql", "--from", from).code, from)
	}
	assert.Contains(t, run(t, "keys", "schema", "postgresql", "--from", "1").stdout, "ALTER TABLE admit_keys")
}

// A row that cannot be read hides no other.
func TestBesideABadRow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	keys := "sqlite:" + path
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), run(t, "keys", "schema", "sqlite").stdout)
	require.NoError(t, err)
	for _, id := range []string{"a", "b", "c"} {
		require.Zero(t, run(t, "keys", "mint", "--id", id, "--owner", "ACME", "--keys", keys).code)
	}
	_, err = db.ExecContext(t.Context(), `UPDATE admit_keys SET networks = '["10.0.0.0/99"]' WHERE id = 'b'`)
	require.NoError(t, err)
	for _, form := range []string{"--json=false", "--json"} {
		r := run(t, "keys", "list", form, "--keys", keys)
		assert.Equal(t, 1, r.code)
		assert.Regexp(t, `(?m)^(a |\{"id":"a")`, r.stdout)
		assert.Regexp(t, `(?m)^(c |\{"id":"c")`, r.stdout)
		assert.Regexp(t, `\Aadmit: list keys: [^\n]*"b"[^\n]*\n\z`, r.stderr)
	}
	r := run(t, "quotas", "set", "ACME", "--quota", "1/day", "--keys", keys)
	assert.Equal(t, 1, r.code)
	assert.Equal(t, 2, strings.Count(r.stdout, "and now has 1/day\n"), r.stdout)
	assert.Regexp(t, `\Aadmit: list keys: [^\n]*"b"[^\n]*\n\z`, r.stderr)
	r = run(t, "keys", "revoke", "b", "--keys", keys)
	assert.Zero(t, r.code, r.stderr)
}
