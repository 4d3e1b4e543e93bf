-- Schema version 2: what a backfill remembers. Times as in version 1.

-- The latest backfill of a source: what was asked for, in words, and the range that came of it.
CREATE TABLE backfill (
    source      TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    asked       TEXT NOT NULL,
    start       INTEGER NOT NULL,
    before      INTEGER NOT NULL
) WITHOUT ROWID;

-- Its slices. What a slice knows of its records stands in seen, open_execution and ended_execution,
-- where its source is the source's name, U+001F and the slice's number.
CREATE TABLE slice (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    source   TEXT NOT NULL,
    warm     INTEGER NOT NULL,
    start    INTEGER NOT NULL,
    before   INTEGER NOT NULL,
    position INTEGER,
    high     INTEGER,
    state    TEXT NOT NULL DEFAULT 'waiting'
);
