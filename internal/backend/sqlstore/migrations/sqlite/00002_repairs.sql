-- Repairs that operators asked for, so that each one is made once.

-- +goose Up
CREATE TABLE repairs (
    activity TEXT NOT NULL,
    id       TEXT NOT NULL,
    doc      BLOB NOT NULL,
    PRIMARY KEY (activity, id)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE repairs;
