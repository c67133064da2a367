-- The head of the scripts that answer a room.
--
-- KEYS  1 m, what is known of it: seed, opened, revision, progress  2 e, its entries
local function room()
  local m = redis.call('HMGET', KEYS[1], 'seed', 'opened', 'revision', 'progress')
  if not m[1] then return {'NOROOM'} end
  return {'OK', m[1], m[2], m[3], m[4], redis.call('LLEN', KEYS[2])}
end
