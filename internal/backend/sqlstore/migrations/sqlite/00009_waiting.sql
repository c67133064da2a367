-- Waiting rooms, and who has which number in them. The numbers of a room are
-- 0, 1, 2, … without a gap, so how many joined is the last one's successor and is
-- kept nowhere else. A user's place is that with his highest number.

-- +goose Up
CREATE TABLE waiting_rooms (
    activity  TEXT    NOT NULL,
    seed      BLOB    NOT NULL,
    opened_at INTEGER NOT NULL,
    revision  INTEGER NOT NULL,
    progress  BLOB    NOT NULL,  -- JSON
    PRIMARY KEY (activity)
) WITHOUT ROWID;

CREATE TABLE waiting_places (
    activity TEXT    NOT NULL,
    number   INTEGER NOT NULL,
    user     TEXT    NOT NULL,
    entry    BLOB    NOT NULL,
    PRIMARY KEY (activity, number)
);  -- with its rowid: otherwise the planner looks for a user by walking the table

CREATE INDEX waiting_places_user ON waiting_places (activity, user);

-- +goose Down
DROP TABLE waiting_places;
DROP TABLE waiting_rooms;
