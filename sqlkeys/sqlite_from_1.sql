-- Upgrades the table admit_keys from version 1 to version 2. It may run while services use the
-- table. Run it in a transaction, or caches may miss a change in between: with the sqlite3
-- shell, BEGIN IMMEDIATE before it, COMMIT after it. A second run fails at the first statement,
-- since the column exists, and leaves the table as it is.
ALTER TABLE admit_keys ADD COLUMN networks TEXT NOT NULL DEFAULT '[]' CHECK (json_type(networks) = 'array');
ALTER TABLE admit_keys ADD COLUMN limits TEXT NOT NULL DEFAULT '[]' CHECK (json_type(limits) = 'array');
ALTER TABLE admit_keys ADD COLUMN quotas TEXT NOT NULL DEFAULT '[]' CHECK (json_type(quotas) = 'array');
ALTER TABLE admit_keys ADD COLUMN former BLOB;

DROP TRIGGER IF EXISTS admit_keys_changed;
CREATE TRIGGER admit_keys_changed
  AFTER UPDATE OF digest, id, owner, plan, scopes, meta, networks, limits, quotas, not_before, expires_at, revoked_at ON admit_keys
BEGIN
  UPDATE admit_keys
  SET changed_at = CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER), version = OLD.version + 1,
    former = CASE WHEN NEW.digest = OLD.digest THEN former ELSE substr(CAST(OLD.digest || coalesce(OLD.former, x'') AS BLOB), 1, 8 * 32) END
  WHERE digest = NEW.digest;
END;
