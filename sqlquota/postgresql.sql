-- Quotas of github.com/admit-go/admit/sqlquota in PostgreSQL 12 or later, whose encoding is UTF8.
--
-- Texts have \xHH in place of a byte that is no UTF-8, of NUL, and of a backslash. A count is
-- known by the SHA-256 of its account, quota and period, which may be longer than an index takes.

-- What accounts have used in a period, and what processes hold of the rest.
CREATE TABLE admit_quota_counts (
  id      bytea            PRIMARY KEY CHECK (octet_length(id) = 32),
  account text COLLATE "C" NOT NULL,
  quota   text COLLATE "C" NOT NULL,
  period  text COLLATE "C" NOT NULL,
  ends_at timestamptz      NOT NULL,
  used    bigint           NOT NULL DEFAULT 0,
  held    bigint           NOT NULL DEFAULT 0,
  told    bigint           NOT NULL DEFAULT 0 -- the use with which somebody has been told last
) WITH (fillfactor = 70);

CREATE INDEX admit_quota_counts_account ON admit_quota_counts (substr(account, 1, 100), id);
CREATE INDEX admit_quota_counts_ends_at ON admit_quota_counts (ends_at);

-- The part of each process in a count.
CREATE TABLE admit_quota_shares (
  count_id   bytea            NOT NULL,
  process    text COLLATE "C" NOT NULL,
  seq        bigint           NOT NULL, -- of its last claim
  used       bigint           NOT NULL,
  held       bigint           NOT NULL,
  notice     integer          NOT NULL, -- 80 or 100: it is to tell somebody
  notice_seq bigint           NOT NULL,
  claimed_at timestamptz      NOT NULL,
  PRIMARY KEY (count_id, process)
) WITH (fillfactor = 70);

-- What was used in each minute, until it is exported.
CREATE TABLE admit_quota_usage (
  id         text COLLATE "C" PRIMARY KEY,
  count_id   bytea            NOT NULL,
  account    text COLLATE "C" NOT NULL,
  quota      text COLLATE "C" NOT NULL,
  period     text COLLATE "C" NOT NULL,
  minute     timestamptz      NOT NULL,
  requests   bigint           NOT NULL,
  offered_at timestamptz -- when last; from then on requests stays as it is
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX admit_quota_usage_open ON admit_quota_usage (count_id, minute) WHERE offered_at IS NULL;
CREATE INDEX admit_quota_usage_minute ON admit_quota_usage (minute, id);
