-- What opened and adjusted the buckets of an activity, for ledgers that can lose
-- it; id is the adjustment's, empty for the opening.

-- +goose Up
CREATE TABLE rules (
    log      TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    epoch    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    doc      BLOB    NOT NULL,
    PRIMARY KEY (log, id)
) WITHOUT ROWID;

-- Logs that are over: nobody need open their buckets again.
CREATE TABLE retired_logs (
    log TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID;

-- +goose Down
DROP TABLE retired_logs;
DROP TABLE rules;
