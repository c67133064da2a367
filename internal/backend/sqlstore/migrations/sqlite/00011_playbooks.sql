-- The gate's playbooks: every change that was made, and what the last one has left.

-- +goose Up
CREATE TABLE playbook_changes (
    version INTEGER NOT NULL PRIMARY KEY,  -- 1, 2, 3, …
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    note    TEXT    NOT NULL,
    body    BLOB    NOT NULL               -- what it was about, as JSON
);

-- One row: playbooks, pulled ones and freezes after the change of that version.
CREATE TABLE playbook_shelf (
    id      INTEGER NOT NULL PRIMARY KEY,  -- 1
    version INTEGER NOT NULL,
    body    BLOB    NOT NULL
);

-- +goose Down
DROP TABLE playbook_shelf;
DROP TABLE playbook_changes;
