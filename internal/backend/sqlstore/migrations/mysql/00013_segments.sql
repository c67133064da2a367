-- Rows of numbers, of which segments are cut. A row stays for ever: its numbers must not come again.

-- +goose Up
CREATE TABLE IF NOT EXISTS segments (
    name        VARBINARY(64) NOT NULL,
    next_number BIGINT        NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS segments;
