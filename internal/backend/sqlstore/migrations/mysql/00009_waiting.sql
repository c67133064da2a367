-- Waiting rooms, and who has which number in them. The numbers of a room are
-- 0, 1, 2, … without a gap, so how many joined is the last one's successor and is
-- kept nowhere else. A user's place is that with his highest number.

-- +goose Up
CREATE TABLE IF NOT EXISTS waiting_rooms (
    activity  VARBINARY(64) NOT NULL,
    seed      BINARY(32)    NOT NULL,
    opened_at BIGINT        NOT NULL,
    revision  BIGINT        NOT NULL,
    progress  MEDIUMBLOB    NOT NULL,
    PRIMARY KEY (activity)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS waiting_places (
    activity VARBINARY(64) NOT NULL,
    number   INT           NOT NULL,
    user     VARBINARY(64) NOT NULL,
    entry    BINARY(16)    NOT NULL,
    PRIMARY KEY (activity, number),
    KEY waiting_places_user (activity, user)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS waiting_places;
DROP TABLE IF EXISTS waiting_rooms;
