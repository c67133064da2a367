-- The layout of migrations/sqlite/00001_store.sql, where every table and index
-- is explained. MySQL commits each DDL statement by itself, so a migration that
-- is cut short is run again from its start: each statement here stands for
-- itself, a table with all its indexes, and does nothing the second time. An
-- ALTER asks first whether it is needed: see 00005.
--
-- Ids, keys and texts are bytes, as they are in Go and in SQLite: VARBINARY
-- compares by case and with trailing spaces, which no collation of utf8mb4 does
-- that MySQL and MariaDB both have, and takes a text cut within a character.

-- +goose Up

CREATE TABLE IF NOT EXISTS orders (
    id             BIGINT            NOT NULL,
    activity       VARBINARY(64)     NOT NULL,
    epoch          INT UNSIGNED      NOT NULL,
    bucket         SMALLINT UNSIGNED NOT NULL,
    number         BIGINT            NOT NULL,
    user           VARBINARY(64)     NOT NULL,
    idem_key       VARBINARY(72)     NOT NULL,
    state          VARBINARY(16)     NOT NULL DEFAULT 'created',
    version        INT               NOT NULL DEFAULT 1,
    check_at       BIGINT,
    created_at     BIGINT            NOT NULL,
    expires_at     BIGINT,
    paid_at        BIGINT,
    closed_at      BIGINT,
    captured_minor BIGINT,
    refunded_minor BIGINT,
    log            VARBINARY(72)     NOT NULL,
    log_epoch      INT UNSIGNED      NOT NULL,
    position       BIGINT            NOT NULL,
    fingerprint    VARBINARY(16)     NOT NULL,
    reason         VARBINARY(1000),
    late_of        VARBINARY(128),
    replaced_by    VARBINARY(64),
    claims         MEDIUMBLOB,
    money          MEDIUMBLOB,
    terms          MEDIUMBLOB        NOT NULL,
    products       MEDIUMBLOB,
    PRIMARY KEY (id),
    UNIQUE KEY orders_reservation (activity, epoch, bucket, number),
    UNIQUE KEY orders_user_key (user, activity, idem_key),
    KEY orders_activity_state (activity, state),
    KEY orders_check_at (check_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS watermarks (
    log      VARBINARY(72) NOT NULL,
    token    BIGINT        NOT NULL,
    epoch    INT UNSIGNED  NOT NULL DEFAULT 0,
    position BIGINT        NOT NULL DEFAULT 0,
    PRIMARY KEY (log)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- TiDB gives each of its servers a range of ids to give out, which would not
-- ascend across them; the comment, which only TiDB reads, keeps to one.
CREATE TABLE IF NOT EXISTS outbox (
    id      BIGINT         NOT NULL AUTO_INCREMENT,
    msg_key VARBINARY(64)  NOT NULL,
    topic   VARBINARY(255) NOT NULL,
    at      BIGINT         NOT NULL,
    body    MEDIUMBLOB,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

CREATE TABLE IF NOT EXISTS outbox_failed (
    id       BIGINT         NOT NULL,
    msg_key  VARBINARY(64)  NOT NULL,
    topic    VARBINARY(255) NOT NULL,
    at       BIGINT         NOT NULL,
    body     MEDIUMBLOB,
    attempts INT            NOT NULL,
    next_at  BIGINT,
    reason   BLOB           NOT NULL,
    PRIMARY KEY (id),
    KEY outbox_failed_key (msg_key, id),
    KEY outbox_failed_next (next_at, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS products (
    id      VARBINARY(64) NOT NULL,
    version INT           NOT NULL,
    doc     MEDIUMBLOB    NOT NULL,
    PRIMARY KEY (id, version)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS activities (
    id       VARBINARY(64) NOT NULL,
    state    VARBINARY(16) NOT NULL,
    revision BIGINT        NOT NULL,
    doc      MEDIUMBLOB    NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- MySQL has no partial index; leading with the column of the condition is its
-- equal, and orders_check_at does without since NULLs stand apart in it.
CREATE TABLE IF NOT EXISTS adjustments (
    seq      BIGINT        NOT NULL AUTO_INCREMENT,
    activity VARBINARY(64) NOT NULL,
    id       VARBINARY(72) NOT NULL,
    finished TINYINT       NOT NULL DEFAULT 0,
    refusal  BLOB,
    doc      MEDIUMBLOB    NOT NULL,
    PRIMARY KEY (seq),
    UNIQUE KEY adjustments_id (activity, id),
    KEY adjustments_open (finished, seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

CREATE TABLE IF NOT EXISTS notifications (
    id      BIGINT         NOT NULL,
    user    VARBINARY(64)  NOT NULL,
    topic   VARBINARY(255) NOT NULL,
    at      BIGINT         NOT NULL,
    read_at BIGINT,
    body    MEDIUMBLOB,
    PRIMARY KEY (id),
    KEY notifications_user (user)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS audit_log (
    id      BIGINT NOT NULL AUTO_INCREMENT,
    at      BIGINT NOT NULL,
    actor   BLOB   NOT NULL,
    action  BLOB   NOT NULL,
    subject BLOB   NOT NULL,
    detail  MEDIUMBLOB NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin /*T![auto_id_cache] AUTO_ID_CACHE 1 */;

-- +goose Down
DROP TABLE IF EXISTS audit_log;
DROP TABLE IF EXISTS notifications;
DROP TABLE IF EXISTS adjustments;
DROP TABLE IF EXISTS activities;
DROP TABLE IF EXISTS products;
DROP TABLE IF EXISTS outbox_failed;
DROP TABLE IF EXISTS outbox;
DROP TABLE IF EXISTS watermarks;
DROP TABLE IF EXISTS orders;
