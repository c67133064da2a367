-- Gives the unit of an order back and lets its user buy again. It looks at the
-- user's mark first, so that a second call adds nothing.
--   KEYS  1 stock  2 user → order  3 user|key → receipt  4 changes
--   ARGV  1 user   2 order id      3 user|key to forget, or ''
if ARGV[3] ~= '' then redis.call('HDEL', KEYS[3], ARGV[3]) end
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('INCR', KEYS[4])
redis.call('INCR', KEYS[1])
return 1
