-- Keys of github.com/admit-go/admit/sqlkeys in PostgreSQL 12 or later.

CREATE TABLE admit_keys (
  digest       bytea       PRIMARY KEY CHECK (octet_length(digest) = 32), -- SHA-256 of the token
  id           text        NOT NULL UNIQUE CHECK (id <> ''),
  owner        text        NOT NULL DEFAULT '',
  plan         text        NOT NULL DEFAULT '',
  scopes       jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(scopes) = 'array'),
  meta         jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(meta) = 'object'),
  not_before   timestamptz,
  expires_at   timestamptz,
  revoked_at   timestamptz,
  created_at   timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz,
  changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(), -- when last, and
  version      bigint      NOT NULL DEFAULT 1                  -- how often
) WITH (fillfactor = 90);

CREATE INDEX admit_keys_owner ON admit_keys (owner, id);
CREATE INDEX admit_keys_changed_at ON admit_keys (changed_at);

-- Caches learn of a change by changed_at, whoever makes it. The last use is no change.
CREATE FUNCTION admit_keys_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.changed_at := clock_timestamp();
  NEW.version := OLD.version + 1;
  RETURN NEW;
END
$$;

CREATE TRIGGER admit_keys_changed
  BEFORE UPDATE OF digest, id, owner, plan, scopes, meta, not_before, expires_at, revoked_at ON admit_keys
  FOR EACH ROW EXECUTE FUNCTION admit_keys_changed();
