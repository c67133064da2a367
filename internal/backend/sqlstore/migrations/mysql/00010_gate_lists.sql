-- The black, white and grey lists of the gate.

-- +goose Up
CREATE TABLE IF NOT EXISTS gate_lists (
    subject  VARBINARY(64)  NOT NULL,
    kind     VARBINARY(8)   NOT NULL,
    list     VARBINARY(8)   NOT NULL,
    activity VARBINARY(64)  NOT NULL,
    reason   VARBINARY(800) NOT NULL,
    actor    VARBINARY(64)  NOT NULL,
    since    BIGINT         NOT NULL,
    ends_at  BIGINT         NOT NULL,
    revision BIGINT         NOT NULL,
    removed  TINYINT        NOT NULL,
    PRIMARY KEY (subject, kind, list, activity),
    UNIQUE KEY gate_lists_revision (revision),
    KEY gate_lists_list (list, revision),
    KEY gate_lists_activity (activity, revision),
    KEY gate_lists_ends_at (ends_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS gate_lists_state (
    id        BIGINT NOT NULL,
    revision  BIGINT NOT NULL,
    forgotten BIGINT NOT NULL,
    listed    BIGINT NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS gate_lists_state;
DROP TABLE IF EXISTS gate_lists;
