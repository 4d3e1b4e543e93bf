-- Schema version 5: what was learned of a source, a number by its name; see `Store.learned`.
CREATE TABLE learned (
    source TEXT NOT NULL,
    name   TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (source, name)
) WITHOUT ROWID;
