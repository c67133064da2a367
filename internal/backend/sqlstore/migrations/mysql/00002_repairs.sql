-- Repairs that operators asked for, so that each one is made once.

-- +goose Up
CREATE TABLE IF NOT EXISTS repairs (
    activity VARBINARY(64)  NOT NULL,
    id       VARBINARY(256) NOT NULL,
    doc      MEDIUMBLOB     NOT NULL,
    PRIMARY KEY (activity, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS repairs;
