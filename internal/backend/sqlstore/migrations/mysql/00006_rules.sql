-- What opened and adjusted the buckets of an activity, for ledgers that can lose
-- it; id is the adjustment's, empty for the opening.

-- +goose Up
CREATE TABLE IF NOT EXISTS rules (
    log      VARBINARY(72) NOT NULL,
    id       VARBINARY(72) NOT NULL,
    epoch    INT UNSIGNED  NOT NULL,
    position BIGINT        NOT NULL,
    doc      MEDIUMBLOB    NOT NULL,
    PRIMARY KEY (log, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Logs that are over: nobody need open their buckets again.
CREATE TABLE IF NOT EXISTS retired_logs (
    log VARBINARY(72) NOT NULL,
    PRIMARY KEY (log)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS retired_logs;
DROP TABLE IF EXISTS rules;
