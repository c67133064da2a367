-- Leases with fencing tokens. A row stays for ever: its token must not come again.

-- +goose Up
CREATE TABLE leases (
    name       TEXT    NOT NULL PRIMARY KEY,
    holder     TEXT    NOT NULL,
    token      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL              -- Unix ms by the database's clock; not after it: nobody holds it
) WITHOUT ROWID;

-- +goose Down
DROP TABLE leases;
