-- Which server of those that replicate this database is its primary: the row,
-- of which there is at most one, has the number of the term and the server_id
-- of who was promoted for it. There is none where no replica is configured.

-- +goose Up
CREATE TABLE IF NOT EXISTS primary_term (
    id     BIGINT NOT NULL PRIMARY KEY,
    term   BIGINT NOT NULL,
    server BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS primary_term;
