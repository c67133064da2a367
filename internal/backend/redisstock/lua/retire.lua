-- Lets a fenced bucket go after a while.
--
-- KEYS  1 m  2 u  3 s  4 c  5 t  6 d
-- ARGV  1 token  2 ms
local m = redis.call('HMGET', KEYS[1], 'token', 'epoch')
if m[1] ~= ARGV[1] then return {m[1] and 'STALE' or 'LOST'} end
if m[2] ~= '0' then return {'LOST'} end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
return {'DONE'}
