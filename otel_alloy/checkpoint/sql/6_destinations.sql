-- Schema version 6: what destinations have not acknowledged. Times as in version 1, unless said.

-- Executions for one destination that are to be delivered, packed (otel_alloy/checkpoint/outbox.py),
-- put there together `at` (our clock); of createdAt from `first` to `last`, NULL where one of them
-- could not be read again from Alloy.
CREATE TABLE outbox (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    source      TEXT NOT NULL,
    at          INTEGER NOT NULL,
    first       INTEGER,
    last        INTEGER,
    executions  INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    packed      BLOB NOT NULL
);
CREATE INDEX outbox_destination ON outbox
    (destination, number, source, executions, size, at, first);

-- What there was no room for: which executions are to be read again from Alloy.
CREATE TABLE recall (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    source      TEXT NOT NULL,
    first       INTEGER NOT NULL,
    last        INTEGER NOT NULL,
    executions  INTEGER NOT NULL,
    packed      BLOB NOT NULL
);
CREATE INDEX recall_destination ON recall (destination, source, first, executions);

-- What is known of a destination, by our clock: since when it is paused, what was delivered last,
-- why it fails.
CREATE TABLE destination (
    name         TEXT PRIMARY KEY,
    paused_at    INTEGER,
    delivered    INTEGER NOT NULL DEFAULT 0,
    delivered_at INTEGER,
    missing      INTEGER NOT NULL DEFAULT 0,
    error        TEXT,
    error_at     INTEGER
) WITHOUT ROWID;

-- How many executions a rule kept back, by the minute of their createdAt.
CREATE TABLE filtered (
    source     TEXT NOT NULL,
    minute     INTEGER NOT NULL,
    rule       TEXT NOT NULL,
    executions INTEGER NOT NULL,
    PRIMARY KEY (source, minute, rule)
) WITHOUT ROWID;

-- The destination that refused a record; NULL: the main one.
ALTER TABLE rejected_detail ADD COLUMN destination TEXT;
