-- What readers of a bus have made of its messages.

-- +goose Up
CREATE TABLE IF NOT EXISTS consumed (
    reader VARBINARY(64) NOT NULL,
    id     BIGINT        NOT NULL,
    at     BIGINT        NOT NULL,
    PRIMARY KEY (reader, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS parked (
    reader   VARBINARY(64)  NOT NULL,
    id       BIGINT         NOT NULL,
    msg_key  VARBINARY(64)  NOT NULL,
    topic    VARBINARY(255) NOT NULL,
    at       BIGINT         NOT NULL,
    body     MEDIUMBLOB,
    attempts INT            NOT NULL,
    next_at  BIGINT,
    reason   BLOB,
    PRIMARY KEY (reader, id),
    KEY parked_key (msg_key, id),
    KEY parked_next (reader, next_at, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS parked;
DROP TABLE IF EXISTS consumed;
