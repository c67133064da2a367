-- Notes that entries are in the store. One that is there and not here was
-- lost here, so the bucket accepts nothing until its keeper has seen to it.
--
-- KEYS  1 m
-- ARGV  1 epoch  2 position
local m = redis.call('HMGET', KEYS[1], 'epoch', 'place', 'landed')
if m[1] ~= ARGV[1] then return {'FENCED'} end
local position = tonumber(ARGV[2])
if position > (cmsgpack.unpack(m[2])) then
  redis.call('HSET', KEYS[1], 'epoch', '0')
  return {'FENCED'}
end
if position > tonumber(m[3]) then redis.call('HSET', KEYS[1], 'landed', ARGV[2]) end
return {'DONE'}
