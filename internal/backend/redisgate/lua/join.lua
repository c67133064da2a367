-- Gives a user the next number, or answers the one that the user has.
--
-- KEYS  1 m  2 e  3 u, the users: 20 bytes each, a digest and the number, several in a field
-- ARGV  1 the user's field  2 the user's digest  3 entry  4 number of no use any more, or -1
--       5 how many numbers may be given out
if redis.call('EXISTS', KEYS[1]) == 0 then return {'NOROOM'} end
local users = redis.call('HGET', KEYS[3], ARGV[1]) or ''
local at = 0
repeat -- what looks like the digest may be parts of two
  at = string.find(users, ARGV[2], at + 1, true)
until not at or at % 20 == 1
if at then
  local n = struct.unpack('>I4', users, at + 16)
  if n ~= tonumber(ARGV[4]) then return {'OK', n, redis.call('LINDEX', KEYS[2], n)} end
  users = string.sub(users, 1, at - 1) .. string.sub(users, at + 20)
end
local n = redis.call('LLEN', KEYS[2])
if n >= tonumber(ARGV[5]) then return {'FULL'} end
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], users .. ARGV[2] .. struct.pack('>I4', n))
return {'OK', n, ARGV[3]}
