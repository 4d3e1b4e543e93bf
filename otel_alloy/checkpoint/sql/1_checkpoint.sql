-- The checkpoint, schema version 1. Times are Unix milliseconds of the API's createdAt.
CREATE TABLE source (
    name          TEXT PRIMARY KEY,
    fingerprint   TEXT NOT NULL,
    begin_at      INTEGER,
    high          INTEGER,
    window_start  INTEGER,
    window_before INTEGER,
    position      INTEGER
) WITHOUT ROWID;

-- Settled records that the next window will read again.
CREATE TABLE seen (
    source  TEXT NOT NULL,
    id      TEXT NOT NULL,
    message TEXT NOT NULL,
    created INTEGER NOT NULL,
    ended   TEXT,
    PRIMARY KEY (source, id, message)
) WITHOUT ROWID;
CREATE INDEX seen_created ON seen (source, created);

CREATE TABLE open_execution (
    source     TEXT NOT NULL,
    execution  TEXT NOT NULL,
    original   TEXT NOT NULL,
    created    INTEGER NOT NULL,
    next_check INTEGER NOT NULL,
    started_at TEXT,
    PRIMARY KEY (source, execution)
) WITHOUT ROWID;

-- Executions that have their span, where a later record is to be expected.
CREATE TABLE ended_execution (
    source    TEXT NOT NULL,
    execution TEXT NOT NULL,
    until     INTEGER NOT NULL,
    PRIMARY KEY (source, execution)
) WITHOUT ROWID;

CREATE TABLE rejected (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    source     TEXT NOT NULL,
    signals    TEXT NOT NULL,
    reason     TEXT NOT NULL,
    role       TEXT NOT NULL,
    original   TEXT NOT NULL,
    started_at TEXT,
    at         INTEGER NOT NULL
);
