-- Makes a room, unless there is one.
--
-- ARGV  1 seed  2 ms
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'seed', ARGV[1], 'opened', ARGV[2], 'revision', '0', 'progress', '{}')
end
return room()
