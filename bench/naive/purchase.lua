-- Takes one unit for a user, or says why not. The remainder is returned, and a
-- refusal is a negative number, so that 0 left is not read as "sold out".
--   KEYS  1 stock  2 user → order  3 user|key → receipt  4 changes  5 owner of the order
--   ARGV  1 user   2 user|key      3 order id            4 receipt
local known = redis.call('HGET', KEYS[3], ARGV[2])
if known then return {-3, known} end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return {-2, ''} end
if tonumber(redis.call('GET', KEYS[1]) or '0') <= 0 then return {-1, ''} end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
redis.call('SET', KEYS[5], ARGV[1], 'EX', 86400)
redis.call('INCR', KEYS[4])
return {redis.call('DECR', KEYS[1]), ARGV[4]}
