-- Ends a lease and puts what was not spent of it back.
local lease = redis.call('GET', KEYS[2])
if not lease then return {0} end
local permits, till = cmsgpack.unpack(lease)
if till <= now then return {0} end
redis.call('SET', KEYS[2], cmsgpack.pack(0, till), 'KEEPTTL')
owed = owed - math.min(tonumber(ARGV[6]), permits)
if owed < 0 then owed, part = 0, 0 end
save()
return {1}
