-- The final proof of each activity that is over.

-- +goose Up
CREATE TABLE IF NOT EXISTS proofs (
    activity VARBINARY(64) NOT NULL,
    log      VARBINARY(72) NOT NULL,
    epoch    INT UNSIGNED  NOT NULL,
    position BIGINT        NOT NULL,
    at       BIGINT        NOT NULL,
    report   MEDIUMBLOB    NOT NULL,
    PRIMARY KEY (activity),
    KEY proofs_at (at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS proofs;
