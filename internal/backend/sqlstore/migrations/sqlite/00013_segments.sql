-- Rows of numbers, of which segments are cut. A row stays for ever: its numbers must not come again.

-- +goose Up
CREATE TABLE segments (
    name        TEXT    NOT NULL PRIMARY KEY,
    next_number INTEGER NOT NULL              -- in no segment yet, nor any after it
) WITHOUT ROWID;

-- +goose Down
DROP TABLE segments;
