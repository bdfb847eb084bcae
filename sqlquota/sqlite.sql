-- Quotas of github.com/admit-go/admit/sqlquota in SQLite 3.38 or later. Times are
-- microseconds since 1970.
--
-- In texts, \xHH stands for a byte that is not valid UTF-8, for NUL and for a backslash. A count
-- is identified by the SHA-256 of its account, quota and period.

-- What accounts have used in a period, and what processes have taken of the rest in advance.
CREATE TABLE admit_quota_counts (
  id      BLOB    NOT NULL PRIMARY KEY CHECK (typeof(id) = 'blob' AND length(id) = 32),
  account TEXT    NOT NULL,
  quota   TEXT    NOT NULL,
  period  TEXT    NOT NULL,
  ends_at INTEGER NOT NULL,
  used    INTEGER NOT NULL DEFAULT 0,
  held    INTEGER NOT NULL DEFAULT 0,
  told    INTEGER NOT NULL DEFAULT 0 -- the usage at the last notification
) WITHOUT ROWID;

CREATE INDEX admit_quota_counts_account ON admit_quota_counts (substr(account, 1, 100), id);
CREATE INDEX admit_quota_counts_ends_at ON admit_quota_counts (ends_at);

-- The share of each process in a count.
CREATE TABLE admit_quota_shares (
  count_id   BLOB    NOT NULL,
  process    TEXT    NOT NULL,
  seq        INTEGER NOT NULL, -- of its last claim
  used       INTEGER NOT NULL,
  held       INTEGER NOT NULL,
  notice     INTEGER NOT NULL, -- 80 or 100: the percentage that this process is to notify of
  notice_seq INTEGER NOT NULL,
  claimed_at INTEGER NOT NULL,
  PRIMARY KEY (count_id, process)
) WITHOUT ROWID;

-- The usage of each minute, until it is exported.
CREATE TABLE admit_quota_usage (
  id         TEXT    NOT NULL PRIMARY KEY,
  count_id   BLOB    NOT NULL,
  account    TEXT    NOT NULL,
  quota      TEXT    NOT NULL,
  period     TEXT    NOT NULL,
  minute     INTEGER NOT NULL,
  requests   INTEGER NOT NULL,
  offered_at INTEGER -- when it was last offered; from then on requests does not change
) WITHOUT ROWID;

CREATE UNIQUE INDEX admit_quota_usage_open ON admit_quota_usage (count_id, minute) WHERE offered_at IS NULL;
CREATE INDEX admit_quota_usage_minute ON admit_quota_usage (minute, id);
