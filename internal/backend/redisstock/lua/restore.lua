-- One step of replacing a fenced bucket. Each step names the one before it, so
-- that none is missing or of another attempt when the last one has been made.
--
-- KEYS  1 m  2 u  3 s  4 c  5 t  6 d
-- ARGV  1 token  2 attempt  3 step, 0…  4 'm', 'u', 'c', 't' or 'd'  5… fields and values, or members
local m = redis.call('HMGET', KEYS[1], 'token', 'epoch', 'stage')
if m[1] ~= ARGV[1] then return {m[1] and 'STALE' or 'LOST'} end
if m[2] ~= '0' then return {'LOST'} end
local step, stage = tonumber(ARGV[3]), ARGV[2] .. ':' .. ARGV[3]
if step == 0 then
  redis.call('UNLINK', unpack(KEYS))
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'epoch', '0', 'stage', stage, unpack(ARGV, 5))
  return {'DONE'}
end
if m[3] ~= ARGV[2] .. ':' .. step - 1 then return {'LOST'} end
local key = KEYS[({u = 2, c = 4, t = 5, d = 6, m = 1})[ARGV[4]]]
redis.call(ARGV[4] == 'c' and 'SADD' or 'HSET', key, unpack(ARGV, 5))
redis.call('HSET', KEYS[1], 'stage', stage)
return {'DONE'}
