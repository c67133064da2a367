-- What readers of a bus have made of its messages.

-- +goose Up
-- Messages whose effect a reader has had, by the id that their queue gave them.
CREATE TABLE consumed (
    reader TEXT    NOT NULL,
    id     INTEGER NOT NULL,
    at     INTEGER NOT NULL,             -- when, by the database's clock
    PRIMARY KEY (reader, id)
) WITHOUT ROWID;

-- Messages that a reader could not deliver, or not yet, and those behind them.
CREATE TABLE parked (
    reader   TEXT    NOT NULL,
    id       INTEGER NOT NULL,
    msg_key  TEXT    NOT NULL,
    topic    TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    body     BLOB,
    attempts INTEGER NOT NULL,
    next_at  INTEGER,                    -- NULL: dead, never tried
    reason   TEXT,
    PRIMARY KEY (reader, id)
) WITHOUT ROWID;
CREATE INDEX parked_key  ON parked (msg_key, id);
CREATE INDEX parked_next ON parked (reader, next_at, id);

-- +goose Down
DROP TABLE parked;
DROP TABLE consumed;
