-- Messages that were handed to a bus, kept until its reader has consumed them.

-- +goose Up
CREATE TABLE outbox_sent (
    id      INTEGER PRIMARY KEY,
    msg_key TEXT    NOT NULL,
    topic   TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    body    BLOB
);

-- +goose Down
DROP TABLE outbox_sent;
