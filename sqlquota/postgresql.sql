-- Quotas of github.com/admit-go/admit/sqlquota in PostgreSQL 12 or later, whose encoding is UTF8.
--
-- In texts, \xHH stands for a byte that is not valid UTF-8, for NUL and for a backslash. A count
-- is identified by the SHA-256 of its account, quota and period, which may be too long for an
-- index.

-- What accounts have used in a period, and what processes have taken of the rest in advance.
CREATE TABLE admit_quota_counts (
  id      bytea            PRIMARY KEY CHECK (octet_length(id) = 32),
  account text COLLATE "C" NOT NULL,
  quota   text COLLATE "C" NOT NULL,
  period  text COLLATE "C" NOT NULL,
  ends_at timestamptz      NOT NULL,
  used    bigint           NOT NULL DEFAULT 0,
  held    bigint           NOT NULL DEFAULT 0,
  told    bigint           NOT NULL DEFAULT 0 -- the usage at the last notification
) WITH (fillfactor = 70);

CREATE INDEX admit_quota_counts_account ON admit_quota_counts (substr(account, 1, 100), id);
CREATE INDEX admit_quota_counts_ends_at ON admit_quota_counts (ends_at);

-- The share of each process in a count.
CREATE TABLE admit_quota_shares (
  count_id   bytea            NOT NULL,
  process    text COLLATE "C" NOT NULL,
  seq        bigint           NOT NULL, -- of its last claim
  used       bigint           NOT NULL,
  held       bigint           NOT NULL,
  notice     integer          NOT NULL, -- 80 or 100: the percentage that this process is to notify of
  notice_seq bigint           NOT NULL,
  claimed_at timestamptz      NOT NULL,
  PRIMARY KEY (count_id, process)
) WITH (fillfactor = 70);

-- The usage of each minute, until it is exported.
CREATE TABLE admit_quota_usage (
  id         text COLLATE "C" PRIMARY KEY,
  count_id   bytea            NOT NULL,
  account    text COLLATE "C" NOT NULL,
  quota      text COLLATE "C" NOT NULL,
  period     text COLLATE "C" NOT NULL,
  minute     timestamptz      NOT NULL,
  requests   bigint           NOT NULL,
  offered_at timestamptz -- when it was last offered; from then on requests does not change
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX admit_quota_usage_open ON admit_quota_usage (count_id, minute) WHERE offered_at IS NULL;
CREATE INDEX admit_quota_usage_minute ON admit_quota_usage (minute, id);
