-- Upgrades the table admit_keys from version 1 to version 2. It may run while services use the
-- table, and more than once. It is one statement, so that caches miss no change in between. It
-- reads the table once under a lock.
DO $$
BEGIN
  ALTER TABLE admit_keys
    ADD COLUMN IF NOT EXISTS networks jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(networks) = 'array'),
    ADD COLUMN IF NOT EXISTS limits   jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(limits) = 'array'),
    ADD COLUMN IF NOT EXISTS quotas   jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(quotas) = 'array'),
    ADD COLUMN IF NOT EXISTS former   bytea;

  CREATE OR REPLACE FUNCTION admit_keys_changed() RETURNS trigger LANGUAGE plpgsql AS $changed$
  BEGIN
    NEW.changed_at := clock_timestamp();
    NEW.version := OLD.version + 1;
    IF NEW.digest <> OLD.digest THEN
      NEW.former := substr(OLD.digest || coalesce(OLD.former, ''), 1, 8 * 32);
    END IF;
    RETURN NEW;
  END
  $changed$;

  DROP TRIGGER IF EXISTS admit_keys_changed ON admit_keys;
  CREATE TRIGGER admit_keys_changed
    BEFORE UPDATE OF digest, id, owner, plan, scopes, meta, networks, limits, quotas, not_before, expires_at, revoked_at ON admit_keys
    FOR EACH ROW EXECUTE FUNCTION admit_keys_changed();
END
$$;
