package main

import (
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/admit-go/admit/sqlkeys"
)

var (
	// A URL, or what begins like one: "mysql:", "postgres:/host", but not "C:\keys.json".
	schemePattern = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*):`)
	drivePattern  = regexp.MustCompile(`^[A-Za-z]:[\\/]`)
	// What libpq takes as well: host=db user=u.
	keywordPattern = regexp.MustCompile(`(?i)(^|\s)(host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*=`)
	// A user and password before a host.
	userinfoPattern = regexp.MustCompile(`:[^/\\]*@`)
)

// openStore opens what --keys names. What may have been meant as the address of a database
// is never taken for a file: a key file of that name would be made, with the password in
// it. For the same reason no error repeats it.
func openStore(where string) (store, error) {
	switch {
	case strings.HasPrefix(where, "postgres://"), strings.HasPrefix(where, "postgresql://"):
		if _, err := url.Parse(where); err != nil {
			return nil, usagef("the address of the database is not a URL such as postgres://USER@HOST/DATABASE; in a password, characters that are special are written as %%40 for @")
		}
		return openDatabase("pgx", where, sqlkeys.PostgreSQL)
	case strings.HasPrefix(where, "sqlite:"):
		path := strings.TrimPrefix(strings.TrimPrefix(where, "sqlite:"), "//")
		if path == "" {
			return nil, usagef("%q names no file", where)
		}
		if _, err := os.Stat(path); err != nil {
			return nil, err // SQLite would not say which
		}
		// mode=rw: a mistyped path is no new database.
		return openDatabase("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=rw&_pragma=busy_timeout(10000)", sqlkeys.SQLite)
	case strings.HasPrefix(where, "/"), strings.HasPrefix(where, "."), drivePattern.MatchString(where):
		return openFile(where)
	case keywordPattern.MatchString(where), strings.HasPrefix(where, "postgres:"), strings.HasPrefix(where, "postgresql:"),
		userinfoPattern.MatchString(where):
		return nil, usagef("a PostgreSQL database is named by a URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	if scheme := schemePattern.FindStringSubmatch(where); scheme != nil {
		return nil, usagef("there is no support for %s: use a file, postgres://... or sqlite:PATH; a file whose name has a colon is ./NAME", scheme[1])
	}
	return openFile(where)
}
