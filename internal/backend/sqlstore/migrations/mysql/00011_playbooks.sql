-- The gate's playbooks: every change that was made, and what the last one has left.

-- +goose Up
CREATE TABLE IF NOT EXISTS playbook_changes (
    version BIGINT         NOT NULL,
    at      BIGINT         NOT NULL,
    actor   VARBINARY(64)  NOT NULL,
    action  VARBINARY(32)  NOT NULL,
    subject VARBINARY(64)  NOT NULL,
    note    VARBINARY(800) NOT NULL,
    body    MEDIUMBLOB     NOT NULL,
    PRIMARY KEY (version)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS playbook_shelf (
    id      BIGINT     NOT NULL,
    version BIGINT     NOT NULL,
    body    MEDIUMBLOB NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS playbook_shelf;
DROP TABLE IF EXISTS playbook_changes;
