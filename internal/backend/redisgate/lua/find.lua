-- Answers the number and the entry of a user.
--
-- KEYS  1 m  2 e  3 u, the users: 20 bytes each, a digest and the number, several in a field
-- ARGV  1 the user's field  2 the user's digest
if redis.call('EXISTS', KEYS[1]) == 0 then return {'NOROOM'} end
local users = redis.call('HGET', KEYS[3], ARGV[1]) or ''
local at = 0
repeat -- what looks like the digest may be parts of two
  at = string.find(users, ARGV[2], at + 1, true)
until not at or at % 20 == 1
if not at then return {'NOTWAITING'} end
local n = struct.unpack('>I4', users, at + 16)
return {'OK', n, redis.call('LINDEX', KEYS[2], n)}
