-- The rules of the gate, all editions of them: the newest is in force.

-- +goose Up
CREATE TABLE gate_rules (
    version INTEGER NOT NULL PRIMARY KEY,  -- 1, 2, 3, …
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    note    TEXT    NOT NULL,
    body    BLOB    NOT NULL               -- the rules, as JSON
);

-- +goose Down
DROP TABLE gate_rules;
