-- Leases with fencing tokens. A row stays for ever: its token must not come again.

-- +goose Up
CREATE TABLE IF NOT EXISTS leases (
    name       VARBINARY(128) NOT NULL,
    holder     VARBINARY(128) NOT NULL,
    token      BIGINT         NOT NULL,
    expires_at BIGINT         NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- +goose Down
DROP TABLE IF EXISTS leases;
