package sqlkeys

import (
	_ "embed"
	"fmt"
)

// schemaVersion is the version of the table that Schema creates.
const schemaVersion = 2

//go:embed postgresql.sql
var postgresqlSchema string

//go:embed postgresql_from_1.sql
var postgresqlFrom1 string

//go:embed sqlite.sql
var sqliteSchema string

//go:embed sqlite_from_1.sql
var sqliteFrom1 string

// Schema returns the statements that create the table admit_keys with its indexes and its
// trigger: the file postgresql.sql or sqlite.sql of this package. A migration tool that splits
// files at semicolons must treat the function in postgresql.sql as one statement. Schema panics
// on an unknown Dialect.
func Schema(d Dialect) string {
	switch d {
	case PostgreSQL:
		return postgresqlSchema
	case SQLite:
		return sqliteSchema
	default:
		panic("sqlkeys: Schema: there is no schema for " + d.String())
	}
}

// SchemaFrom returns the statements that upgrade a table of an earlier version to that of
// Schema. Version 1 has no columns networks, limits, quotas and former. For version 2, the
// current one, SchemaFrom returns "".
//
// A Store works on a table of version 1 too, until a key has Networks, Limits or Quotas; see
// also Watch. The statements may run while services use the table. The services need no
// restart.
//
// For PostgreSQL it is one DO statement, which may run twice. For SQLite, run the statements in
// a transaction; a second run fails, since the columns exist, and leaves the table as it is.
// SchemaFrom panics on an unknown Dialect, and on a version that does not exist.
func SchemaFrom(d Dialect, version int) string {
	if version < 1 || version > schemaVersion {
		panic(fmt.Sprintf("sqlkeys: SchemaFrom: there is no version %d of the table; the current one is %d", version, schemaVersion))
	}
	if d != PostgreSQL && d != SQLite {
		panic("sqlkeys: SchemaFrom: there is no schema for " + d.String())
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
