-- Starts acceptance, if the bucket is as the last step of Restore left it.
--
-- KEYS  1 m
-- ARGV  1 token  2 epoch  3 attempt:step
local m = redis.call('HMGET', KEYS[1], 'token', 'stage')
if m[1] ~= ARGV[1] then return {m[1] and 'STALE' or 'LOST'} end
if m[2] ~= ARGV[3] then return {'LOST'} end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
redis.call('HDEL', KEYS[1], 'stage')
return {'DONE'}
