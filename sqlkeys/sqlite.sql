-- Keys of github.com/admit-go/admit/sqlkeys in SQLite 3.38 or later, version 2. Times are
-- microseconds since 1970.
--
-- networks: where the key may be used from; empty: from anywhere.
-- ["192.0.2.0/24", "2001:db8::/32"]
-- limits: the rate limits of this key, instead of those of its plan. per is a Go duration; name
-- and burst are optional. [{"name": "minute", "requests": 1000, "per": "1m", "burst": 100}]
-- quotas: the quotas of this key, instead of those of its plan with the same names. every is
-- day, week or month; name and soft are optional.
-- [{"name": "month", "requests": 20000, "every": "month", "soft": true}]
-- A key whose networks, limits or quotas cannot be read is rejected.

CREATE TABLE admit_keys (
  digest       BLOB    NOT NULL PRIMARY KEY CHECK (typeof(digest) = 'blob' AND length(digest) = 32), -- SHA-256 of the token
  id           TEXT    NOT NULL UNIQUE CHECK (id <> ''),
  owner        TEXT    NOT NULL DEFAULT '',
  plan         TEXT    NOT NULL DEFAULT '',
  scopes       TEXT    NOT NULL DEFAULT '[]' CHECK (json_type(scopes) = 'array'),
  meta         TEXT    NOT NULL DEFAULT '{}' CHECK (json_type(meta) = 'object'),
  networks     TEXT    NOT NULL DEFAULT '[]' CHECK (json_type(networks) = 'array'),
  limits       TEXT    NOT NULL DEFAULT '[]' CHECK (json_type(limits) = 'array'),
  quotas       TEXT    NOT NULL DEFAULT '[]' CHECK (json_type(quotas) = 'array'),
  not_before   INTEGER,
  expires_at   INTEGER,
  revoked_at   INTEGER,
  created_at   INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)),
  last_used_at INTEGER,
  changed_at   INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)), -- time of the last change
  version      INTEGER NOT NULL DEFAULT 1, -- number of changes, plus 1
  former       BLOB -- previous digests, the latest first
) WITHOUT ROWID;

CREATE INDEX admit_keys_owner ON admit_keys (owner, id);
CREATE INDEX admit_keys_changed_at ON admit_keys (changed_at);

-- Whichever program changes a key, caches see the change in changed_at, and the previous digests
-- in former. Writing the last use is not a change.
CREATE TRIGGER admit_keys_changed
  AFTER UPDATE OF digest, id, owner, plan, scopes, meta, networks, limits, quotas, not_before, expires_at, revoked_at ON admit_keys
BEGIN
  UPDATE admit_keys
  SET changed_at = CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER), version = OLD.version + 1,
    former = CASE WHEN NEW.digest = OLD.digest THEN former ELSE substr(CAST(OLD.digest || coalesce(OLD.former, x'') AS BLOB), 1, 8 * 32) END
  WHERE digest = NEW.digest;
END;
