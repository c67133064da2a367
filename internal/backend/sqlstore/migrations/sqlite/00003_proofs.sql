-- The final proof of each activity that is over.

-- +goose Up
CREATE TABLE proofs (
    activity TEXT    NOT NULL PRIMARY KEY,
    log      TEXT    NOT NULL,          -- log, epoch, position: where the books were compared
    epoch    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    report   BLOB    NOT NULL
) WITHOUT ROWID;
CREATE INDEX proofs_at ON proofs (at);

-- +goose Down
DROP TABLE proofs;
