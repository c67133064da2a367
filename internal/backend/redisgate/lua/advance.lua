-- Replaces the progress of a room that has still this revision.
--
-- ARGV  1 revision  2 progress, opaque here
local revision = redis.call('HGET', KEYS[1], 'revision')
if not revision then return {'NOROOM'} end
if revision ~= ARGV[1] then return {'MOVED'} end
redis.call('HSET', KEYS[1], 'progress', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'revision', 1)
return room()
