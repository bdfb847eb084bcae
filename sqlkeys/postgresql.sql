-- Keys of github.com/admit-go/admit/sqlkeys in PostgreSQL 12 or later, version 2.
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
  digest       bytea       PRIMARY KEY CHECK (octet_length(digest) = 32), -- SHA-256 of the token
  id           text        NOT NULL UNIQUE CHECK (id <> ''),
  owner        text        NOT NULL DEFAULT '',
  plan         text        NOT NULL DEFAULT '',
  scopes       jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(scopes) = 'array'),
  meta         jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(meta) = 'object'),
  networks     jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(networks) = 'array'),
  limits       jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(limits) = 'array'),
  quotas       jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(quotas) = 'array'),
  not_before   timestamptz,
  expires_at   timestamptz,
  revoked_at   timestamptz,
  created_at   timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz,
  changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(), -- time of the last change
  version      bigint      NOT NULL DEFAULT 1,                 -- number of changes, plus 1
  former       bytea                                           -- previous digests, the latest first
) WITH (fillfactor = 90);

CREATE INDEX admit_keys_owner ON admit_keys (owner, id);
CREATE INDEX admit_keys_changed_at ON admit_keys (changed_at);

-- Whichever program changes a key, caches see the change in changed_at, and the previous digests
-- in former. Writing the last use is not a change.
CREATE FUNCTION admit_keys_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.changed_at := clock_timestamp();
  NEW.version := OLD.version + 1;
  IF NEW.digest <> OLD.digest THEN
    NEW.former := substr(OLD.digest || coalesce(OLD.former, ''), 1, 8 * 32);
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER admit_keys_changed
  BEFORE UPDATE OF digest, id, owner, plan, scopes, meta, networks, limits, quotas, not_before, expires_at, revoked_at ON admit_keys
  FOR EACH ROW EXECUTE FUNCTION admit_keys_changed();
