-- Only servers have replicas: here so that both sides have the same tables.

-- +goose Up
CREATE TABLE primary_term (
    id     INTEGER NOT NULL PRIMARY KEY,
    term   INTEGER NOT NULL,
    server INTEGER NOT NULL
);

-- +goose Down
DROP TABLE primary_term;
