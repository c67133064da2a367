-- Which activities live: those without a final proof.

-- +goose Up

-- MySQL has no ADD COLUMN IF NOT EXISTS, so this asks first: it, too, may run again.
SET @living = (SELECT IF(COUNT(*) = 0,
    'ALTER TABLE activities ADD COLUMN proved TINYINT NOT NULL DEFAULT 0, ADD KEY activities_proved (proved)', 'DO 0')
    FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'activities' AND column_name = 'proved');
PREPARE living FROM @living;
EXECUTE living;
DEALLOCATE PREPARE living;

-- +goose Down
ALTER TABLE activities DROP KEY activities_proved, DROP COLUMN proved;
