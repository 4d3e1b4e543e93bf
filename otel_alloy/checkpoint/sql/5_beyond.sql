-- Schema version 5: what was learned beyond the notifications. Times as in version 1.

-- What was learned of a source, a number by its name; see `Store.learned`.
CREATE TABLE learned (
    source TEXT NOT NULL,
    name   TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (source, name)
) WITHOUT ROWID;

-- Executions that ended and wait for their blocks and reason (otel_alloy/checkpoint/waiting.py):
-- the JSON of the notification, since when (our clock), and what is known, once that is settled.
CREATE TABLE waiting (
    source     TEXT NOT NULL,
    execution  TEXT NOT NULL,
    uuid       TEXT NOT NULL,
    original   TEXT NOT NULL,
    started_at TEXT,
    since      INTEGER NOT NULL,
    enrichment TEXT,
    PRIMARY KEY (source, execution)
) WITHOUT ROWID;

-- What Alloy's error webhook told, by executionUuid, and when (our clock).
CREATE TABLE reason (
    uuid   TEXT PRIMARY KEY,
    at     INTEGER NOT NULL,
    report TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX reason_at ON reason (at);

-- How the blocks of one version of an installed workflow are called, as JSON.
CREATE TABLE workflow_blocks (
    workflow TEXT NOT NULL,
    version  INTEGER NOT NULL,
    blocks   TEXT NOT NULL,
    PRIMARY KEY (workflow, version)
);

-- What was known of a rejected execution beyond its notification.
ALTER TABLE rejected_detail ADD COLUMN enrichment TEXT;
