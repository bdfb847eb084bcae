package sqlkeys

import (
	_ "embed"
	"fmt"
)

// schemaVersion is the version of the table that Schema makes.
const schemaVersion = 2

//go:embed postgresql.sql
var postgresqlSchema string

//go:embed postgresql_from_1.sql
var postgresqlFrom1 string

//go:embed sqlite.sql
var sqliteSchema string

//go:embed sqlite_from_1.sql
var sqliteFrom1 string

// Schema returns the statements that make the table admit_keys with its indexes and its
// trigger: those of postgresql.sql or sqlite.sql in this package. A migration tool that
// splits files at semicolons must take the function in postgresql.sql as one statement.
// It panics on an unknown Dialect.
func Schema(d Dialect) string {
	switch d {
	case PostgreSQL:
		return postgresqlSchema
	case SQLite:
		return sqliteSchema
	default:
		panic("sqlkeys: Schema: there is no " + d.String())
	}
}

// SchemaFrom returns the statements that bring a table of an earlier version up to that of
// Schema. Version 1 is the one without the columns networks, limits, quotas and former; from
// version 2, the present one, there is nothing to do, and SchemaFrom returns "".
//
// A Store works on a table of version 1 too, until a key has Networks, Limits or Quotas; see
// also Watch. The statements may run beside services that use the table: they need no restart.
//
// For PostgreSQL it is one DO statement, which may run twice. For SQLite, run the
// statements in a transaction; a second run fails, since the columns are there, and leaves
// the table as it is. SchemaFrom panics on an unknown Dialect, and on a version that there
// never was.
func SchemaFrom(d Dialect, version int) string {
	if version < 1 || version > schemaVersion {
		panic(fmt.Sprintf("sqlkeys: SchemaFrom: there is no version %d of the table; the last one is %d", version, schemaVersion))
	}
	if d != PostgreSQL && d != SQLite {
		panic("sqlkeys: SchemaFrom: there is no " + d.String())
	}
	switch {
	case version == schemaVersion:
		return ""
	case d == PostgreSQL:
		return postgresqlFrom1
	default:
		return sqliteFrom1
	}
}
