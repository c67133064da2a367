-- Sets permits aside under an id, or answers what it did the first time.
-- Answers permits, for how long they are valid, and when to ask again, in µs.
local want, validity = tonumber(ARGV[6]), tonumber(ARGV[5])
local permits, left = 0, 0

local lease = redis.call('GET', KEYS[2])
local till = 0
if lease then permits, till = cmsgpack.unpack(lease) end
if till > now then
  left = permits > 0 and math.min(till - now, validity) or 0
else
  permits = math.min(want, capacity - owed - (part > 0 and 1 or 0))
  if permits > 0 then
    left = validity
    owed = owed + permits
    -- It is remembered a little longer than it is valid, never shorter.
    redis.call('SET', KEYS[2], cmsgpack.pack(permits, now + validity), 'PX', math.ceil(validity / 1000) + 1)
  else
    permits = 0
  end
  if permits > 0 or edited then save() end
end

-- Worth a call is a quarter of what was wanted: not each single permit as it
-- comes, nor so late that others have it all.
local again = 0
if permits < want then again = pays(math.min(math.floor(want / 4) + 1, capacity) - capacity) end
return {permits, left, again}
