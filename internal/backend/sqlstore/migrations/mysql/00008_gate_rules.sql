-- The rules of the gate, all editions of them: the newest is in force.

-- +goose Up
CREATE TABLE IF NOT EXISTS gate_rules (
    version BIGINT         NOT NULL,
    at      BIGINT         NOT NULL,
    actor   VARBINARY(64)  NOT NULL,
    note    VARBINARY(800) NOT NULL,
    body    MEDIUMBLOB     NOT NULL,
    PRIMARY KEY (version)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS gate_rules;
