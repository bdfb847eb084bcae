package main

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/admit-go/admit/sqlkeys"
)

var (
	// A URL, or the beginning of one: "mysql:", "postgres:/host", but not "C:\keys.json".
	schemePattern = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*):`)
	drivePattern  = regexp.MustCompile(`^[A-Za-z]:[\\/]`)
	// The other form that libpq accepts: host=db user=u.
	keywordPattern = regexp.MustCompile(`(?i)(^|\s)(host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*=`)
	// A user and password before a host.
	userinfoPattern = regexp.MustCompile(`:[^/\\]*@`)
)

// openStore opens the store of --keys. It never takes for a file what may have been meant as
// the address of a database, or it would create a key file whose name has the password in it.
// For the same reason errors do not repeat the address.
func openStore(where string) (store, error) {
	switch {
	case strings.HasPrefix(where, "postgres://"), strings.HasPrefix(where, "postgresql://"):
		if _, err := url.Parse(where); err != nil {
			return nil, usagef("the address of the database is not a URL such as postgres://USER@HOST/DATABASE; in a password, escape special characters, for example @ as %%40")
		}
		return openDatabase("pgx", where, sqlkeys.PostgreSQL)
	case strings.HasPrefix(where, "sqlite:"):
		path := strings.TrimPrefix(strings.TrimPrefix(where, "sqlite:"), "//")
		if path == "" {
			return nil, usagef("%q has no path: use sqlite:PATH", where)
		}
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("open the database: %w (see `admit keys schema --help` to create one)", err)
		}
		// mode=rw: a mistyped path must not create a database.
		return openDatabase("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=rw&_pragma=busy_timeout(10000)", sqlkeys.SQLite)
	case strings.HasPrefix(where, "/"), strings.HasPrefix(where, "."), drivePattern.MatchString(where):
		return openFile(where)
	case keywordPattern.MatchString(where), strings.HasPrefix(where, "postgres:"), strings.HasPrefix(where, "postgresql:"),
		userinfoPattern.MatchString(where):
		return nil, usagef("give the PostgreSQL database as a URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	if scheme := schemePattern.FindStringSubmatch(where); scheme != nil {
		return nil, usagef("%s is not supported: use a key file, postgres://... or sqlite:PATH; write a file name that has a colon as ./NAME", scheme[1])
	}
	return openFile(where)
}
