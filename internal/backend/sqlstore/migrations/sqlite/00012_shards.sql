-- Orders over several databases, which only servers have: here so that both
-- sides have the same tables. They stay empty in a file.

-- +goose Up
-- Which logical shards of users are where. A row is a range: it ends where the
-- next one begins. The highest version is in force.
CREATE TABLE shard_map (
    version      INTEGER NOT NULL,
    first_shard  INTEGER NOT NULL,
    database_no  INTEGER NOT NULL,
    table_no     INTEGER NOT NULL,
    PRIMARY KEY (version, first_shard)
) WITHOUT ROWID;

-- The one row says of which store this database is part, and which one: so an
-- address in the wrong place is noticed.
CREATE TABLE shard_member (
    id          INTEGER NOT NULL PRIMARY KEY,
    store       TEXT    NOT NULL,
    database_no INTEGER NOT NULL
);

-- The newest batch of each log, for the databases that it may not have reached
-- yet: from where to where it moves the watermark, and the rows for them.
CREATE TABLE decided_batches (
    log           TEXT    NOT NULL,
    part          INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    position      INTEGER NOT NULL,
    from_epoch    INTEGER NOT NULL,
    from_position INTEGER NOT NULL,
    doc           BLOB,
    PRIMARY KEY (log, part)
) WITHOUT ROWID;

-- Orders whose id does not lead to their user's shard, and which one does. It
-- stands in the database that the id leads to.
CREATE TABLE stray_orders (
    id    INTEGER NOT NULL PRIMARY KEY,
    shard INTEGER NOT NULL
);

-- +goose Down
DROP TABLE stray_orders;
DROP TABLE decided_batches;
DROP TABLE shard_member;
DROP TABLE shard_map;
