-- The newest report on the books of each bucket, and what is wanted of whoever
-- keeps them.

-- +goose Up
CREATE TABLE IF NOT EXISTS proof_parts (
    log      VARBINARY(72) NOT NULL,
    epoch    INT UNSIGNED  NOT NULL,
    position BIGINT        NOT NULL,
    at       BIGINT        NOT NULL,
    part     MEDIUMBLOB    NOT NULL,
    PRIMARY KEY (log)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS proof_asks (
    kind   VARBINARY(16) NOT NULL,
    name   VARBINARY(72) NOT NULL,
    number BIGINT        NOT NULL,
    PRIMARY KEY (kind, name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS proof_asks;
DROP TABLE IF EXISTS proof_parts;
