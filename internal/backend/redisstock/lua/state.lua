-- Reads everything in m: rules, counts and place in the log.
--
-- KEYS  1 m
-- ARGV  1 newest entry seen
local m = redis.call('HMGET', KEYS[1], 'epoch', 'place')
if m[1] ~= EPOCH then return {'FENCED'} end
local seq = cmsgpack.unpack(m[2])
if tonumber(ARGV[1]) > seq then return lost(KEYS[1]) end
return {'STATE', redis.call('HGETALL', KEYS[1])}
