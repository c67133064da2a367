-- Ends acceptance, for the newest keeper there has been.
--
-- KEYS  1 m
-- ARGV  1 the keeper's token
if tonumber(ARGV[1]) < tonumber(redis.call('HGET', KEYS[1], 'token') or 0) then return {'STALE'} end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'epoch', '0')
redis.call('HDEL', KEYS[1], 'stage')
return {'DONE'}
