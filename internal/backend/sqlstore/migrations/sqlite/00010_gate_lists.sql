-- The black, white and grey lists of the gate.

-- +goose Up
CREATE TABLE gate_lists (
    subject  TEXT    NOT NULL,
    kind     TEXT    NOT NULL,          -- user, ip, phone
    list     TEXT    NOT NULL,          -- black, white, grey
    activity TEXT    NOT NULL,          -- '': every one
    reason   TEXT    NOT NULL,
    actor    TEXT    NOT NULL,
    since    INTEGER NOT NULL,
    ends_at  INTEGER NOT NULL,          -- 0: never; of one that was removed, when it was
    revision INTEGER NOT NULL,          -- of the last change: each change of any entry has the next
    removed  INTEGER NOT NULL,          -- 1: stays for those who follow the changes
    PRIMARY KEY (subject, kind, list, activity)
) WITHOUT ROWID;
CREATE UNIQUE INDEX gate_lists_revision ON gate_lists (revision);
CREATE INDEX gate_lists_list ON gate_lists (list, revision);
CREATE INDEX gate_lists_activity ON gate_lists (activity, revision);
CREATE INDEX gate_lists_ends_at ON gate_lists (ends_at);

CREATE TABLE gate_lists_state (
    id        INTEGER NOT NULL PRIMARY KEY,  -- 1
    revision  INTEGER NOT NULL,              -- the last that was given
    forgotten INTEGER NOT NULL,              -- the greatest of a row that is there no more
    listed    INTEGER NOT NULL               -- rows that are not removed
);

-- +goose Down
DROP TABLE gate_lists_state;
DROP TABLE gate_lists;
