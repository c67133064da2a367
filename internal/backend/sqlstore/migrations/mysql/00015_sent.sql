-- Messages that were handed to a bus, kept until its reader has consumed them.

-- +goose Up
CREATE TABLE IF NOT EXISTS outbox_sent (
    id      BIGINT         NOT NULL,
    msg_key VARBINARY(64)  NOT NULL,
    topic   VARBINARY(255) NOT NULL,
    at      BIGINT         NOT NULL,
    body    MEDIUMBLOB,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS outbox_sent;
