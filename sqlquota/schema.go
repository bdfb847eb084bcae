package sqlquota

import _ "embed"

//go:embed postgresql.sql
var postgresqlSchema string

//go:embed sqlite.sql
var sqliteSchema string

// Schema returns the statements that create the tables admit_quota_counts, admit_quota_shares
// and admit_quota_usage with their indexes: the file postgresql.sql or sqlite.sql of this
// package. It panics on an unknown Dialect.
func Schema(d Dialect) string {
	switch d {
	case PostgreSQL:
		return postgresqlSchema
	case SQLite:
		return sqliteSchema
	default:
		panic("sqlquota: Schema: there is no schema for " + d.String())
	}
}
