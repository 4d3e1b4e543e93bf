-- Schema version 4: what audits need. Times as in version 1.

-- How late records became visible (otel_alloy/pipeline/visibility.py), and from where on `known`
-- holds everything that was settled; NULL where it does from the source's beginning.
ALTER TABLE source ADD COLUMN visibility TEXT;
ALTER TABLE source ADD COLUMN known_from INTEGER;

-- What only time tells of the API, as JSON: how often each was seen (Settlement.counted).
ALTER TABLE source ADD COLUMN facts TEXT;
UPDATE source SET known_from=high+1;

-- Settled records in 8 bytes each, and the executions that got their span, one row for what was
-- settled together (otel_alloy/checkpoint/known.py); of createdAt from `first` to `last`.
CREATE TABLE known (
    source TEXT NOT NULL,
    last   INTEGER NOT NULL,
    first  INTEGER NOT NULL,
    packed BLOB NOT NULL,
    spans  BLOB NOT NULL
);
CREATE INDEX known_last ON known (source, last);

-- Up to where every stretch was audited at an age (ms), and what was found.
CREATE TABLE audited (
    source TEXT NOT NULL,
    age    INTEGER NOT NULL,
    before INTEGER NOT NULL,
    PRIMARY KEY (source, age)
) WITHOUT ROWID;
CREATE TABLE audit_result (
    source    TEXT NOT NULL,
    start     INTEGER NOT NULL,
    age       INTEGER NOT NULL,
    before    INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    api       INTEGER,
    settled   INTEGER NOT NULL,
    recovered INTEGER NOT NULL,
    PRIMARY KEY (source, start, age)
) WITHOUT ROWID;

-- How many records a slice of a backfill has settled; NULL where an older program began it.
ALTER TABLE slice ADD COLUMN records INTEGER;
UPDATE slice SET records=0 WHERE position IS NULL AND state!='done';

-- What earlier programs of version 3 kept beside it: the resource of a record that was set aside,
-- and what tells it apart; and the order in which open executions fall due.
CREATE TABLE IF NOT EXISTS rejected_detail (
    number   INTEGER PRIMARY KEY,
    resource TEXT,
    identity TEXT NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS open_due ON open_execution (source, created + next_check);
CREATE INDEX IF NOT EXISTS open_created ON open_execution (source, created);
CREATE INDEX IF NOT EXISTS seen_ended ON seen (source, ended) WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS ended_until ON ended_execution (source, until);
