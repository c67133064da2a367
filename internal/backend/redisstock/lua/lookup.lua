-- Reads all reservations of a user.
--
-- KEYS  1 m  2 u
-- ARGV  1 user  2 newest entry seen
-- Answers {'FOUND', the records or false, landed, newest entry}.
local m = redis.call('HMGET', KEYS[1], 'epoch', 'place', 'landed')
if m[1] ~= EPOCH then return {'FENCED'} end
local seq = cmsgpack.unpack(m[2])
if tonumber(ARGV[2]) > seq then return lost(KEYS[1]) end
return {'FOUND', redis.call('HGET', KEYS[2], ARGV[1]), tonumber(m[3]), seq}
