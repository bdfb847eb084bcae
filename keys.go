package admit

import "time"

// Key is who calls: what a KeyStore knows about one API key. It is read-only once
// handed out. A zero time is no bound, and one in the future is not there yet.
type Key struct {
	ID, Owner, Plan                 string
	Scopes                          []string
	NotBefore, ExpiresAt, RevokedAt time.Time
	Meta                            map[string]string
}
