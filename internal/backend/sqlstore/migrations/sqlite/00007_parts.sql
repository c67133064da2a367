-- The newest report on the books of each bucket, and what is wanted of whoever
-- keeps them.

-- +goose Up
CREATE TABLE proof_parts (
    log      TEXT    NOT NULL PRIMARY KEY,
    epoch    INTEGER NOT NULL,          -- epoch, position: where the books were compared
    position INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    part     BLOB    NOT NULL
) WITHOUT ROWID;

CREATE TABLE proof_asks (
    kind   TEXT    NOT NULL,
    name   TEXT    NOT NULL,            -- an activity, or the log of a bucket
    number INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE proof_asks;
DROP TABLE proof_parts;
