-- The first layout of the store. Times are Unix milliseconds, amounts minor
-- units, structured values JSON. NULL stands for the zero value of a field, so
-- that a row pays only for what it has.

-- +goose Up

-- +goose StatementBegin
-- One row per reservation. Columns that are searched come first; what is only
-- read together with its order (terms, products, money) is one JSON value each.
CREATE TABLE orders (
    id             INTEGER PRIMARY KEY, -- a snowflake: near-ascending, so rows are appended
    activity       TEXT    NOT NULL,
    epoch          INTEGER NOT NULL,
    bucket         INTEGER NOT NULL,
    number         INTEGER NOT NULL,    -- activity, bucket, epoch, number: the reservation
    user           TEXT    NOT NULL,
    idem_key       TEXT    NOT NULL,
    state          TEXT    NOT NULL DEFAULT 'created',
    version        INTEGER NOT NULL DEFAULT 1,
    check_at       INTEGER,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER,
    paid_at        INTEGER,
    closed_at      INTEGER,
    captured_minor INTEGER,             -- sums over money, in the currency of the terms
    refunded_minor INTEGER,
    log            TEXT    NOT NULL,
    log_epoch      INTEGER NOT NULL,
    position       INTEGER NOT NULL,
    fingerprint    BLOB    NOT NULL,
    reason         TEXT,
    late_of        TEXT,
    replaced_by    TEXT,
    claims         BLOB,
    money          BLOB,
    terms          BLOB    NOT NULL,
    products       BLOB
);
-- +goose StatementEnd

-- One order per reservation: what makes landing idempotent. Ascending within
-- an activity, so it is appended to; the proof reads orders along it.
CREATE UNIQUE INDEX orders_reservation ON orders (activity, epoch, bucket, number);

-- One order per idempotency key. Led by the user, it also serves "my orders":
-- a separate index by (user, id) would cost a second random insert per order,
-- and a user has few enough orders to take the newest of them from this one.
CREATE UNIQUE INDEX orders_user_key ON orders (user, activity, idem_key);

-- Orders of an activity by state, newest first (the id is the row id, which
-- ends every index entry).
CREATE INDEX orders_activity_state ON orders (activity, state);

-- What the worker must look at next. Paid and finished orders are not in it.
CREATE INDEX orders_check_at ON orders (check_at) WHERE check_at IS NOT NULL;

-- How far each log has landed, and the token of its only lander.
CREATE TABLE watermarks (
    log      TEXT    NOT NULL PRIMARY KEY,
    token    INTEGER NOT NULL,
    epoch    INTEGER NOT NULL DEFAULT 0,
    position INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Messages that have not failed. AUTOINCREMENT: ids are never used again, since
-- consumers remember them.
CREATE TABLE outbox (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    msg_key TEXT    NOT NULL,
    topic   TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    body    BLOB
);

-- Messages that failed or are dead, moved here with their id. Keeping them
-- apart spares every ordinary message an index, and keeps the search for
-- blocked keys as small as the number of failures.
CREATE TABLE outbox_failed (
    id       INTEGER PRIMARY KEY,
    msg_key  TEXT    NOT NULL,
    topic    TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    body     BLOB,
    attempts INTEGER NOT NULL,
    next_at  INTEGER,                  -- NULL: dead, never tried
    reason   TEXT    NOT NULL
);
CREATE INDEX outbox_failed_key  ON outbox_failed (msg_key, id);
CREATE INDEX outbox_failed_next ON outbox_failed (next_at, id);

-- Every version of every product.
CREATE TABLE products (
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL,
    doc     BLOB    NOT NULL,
    PRIMARY KEY (id, version)
) WITHOUT ROWID;

CREATE TABLE activities (
    id       TEXT    NOT NULL PRIMARY KEY,
    state    TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    doc      BLOB    NOT NULL
) WITHOUT ROWID;

-- Adjustments asked of the ledger, in the order they were asked.
CREATE TABLE adjustments (
    seq      INTEGER PRIMARY KEY,
    activity TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    finished INTEGER NOT NULL DEFAULT 0,
    refusal  TEXT,
    doc      BLOB    NOT NULL,
    UNIQUE (activity, id)
);
CREATE INDEX adjustments_open ON adjustments (seq) WHERE finished = 0;

-- In-site notifications; the id is that of the message each was made from.
CREATE TABLE notifications (
    id      INTEGER PRIMARY KEY,
    user    TEXT    NOT NULL,
    topic   TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    read_at INTEGER,
    body    BLOB
);
CREATE INDEX notifications_user ON notifications (user);

-- What operators did.
CREATE TABLE audit_log (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    detail  TEXT    NOT NULL
);

-- +goose Down
DROP TABLE audit_log;
DROP TABLE notifications;
DROP TABLE adjustments;
DROP TABLE activities;
DROP TABLE products;
DROP TABLE outbox_failed;
DROP TABLE outbox;
DROP TABLE watermarks;
DROP TABLE orders;
