-- Which activities live: those without a final proof. Tasks look at them all
-- the time, and at the others, which only ever grow in number, never.

-- +goose Up
ALTER TABLE activities ADD COLUMN proved INTEGER NOT NULL DEFAULT 0;
CREATE INDEX activities_proved ON activities (proved);

-- +goose Down
DROP INDEX activities_proved;
ALTER TABLE activities DROP COLUMN proved;
