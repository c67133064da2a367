-- Orders over several databases: which logical shards of users are where, the
-- number of this database among them, batches that were decided and may not
-- have reached all databases, and orders that are not where their id says.

-- +goose Up
CREATE TABLE IF NOT EXISTS shard_map (
    version      BIGINT NOT NULL,
    first_shard  INT    NOT NULL,
    database_no  INT    NOT NULL,
    table_no     INT    NOT NULL,
    PRIMARY KEY (version, first_shard)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS shard_member (
    id          BIGINT        NOT NULL,
    store       VARBINARY(64) NOT NULL,
    database_no INT           NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS decided_batches (
    log           VARBINARY(72) NOT NULL,
    part          INT           NOT NULL,
    epoch         INT UNSIGNED  NOT NULL,
    position      BIGINT        NOT NULL,
    from_epoch    INT UNSIGNED  NOT NULL,
    from_position BIGINT        NOT NULL,
    doc           MEDIUMBLOB,
    PRIMARY KEY (log, part)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS stray_orders (
    id    BIGINT NOT NULL,
    shard INT    NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS stray_orders;
DROP TABLE IF EXISTS decided_batches;
DROP TABLE IF EXISTS shard_member;
DROP TABLE IF EXISTS shard_map;
