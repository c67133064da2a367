-- The head of both scripts of a pool: the bucket as it is now.
--
-- KEYS  1 the bucket  2 the lease
-- ARGV  1 version of the rate  2 limit  3 per, µs  4 capacity  5 validity of leases, µs  6 permits
--
-- It is the arithmetic of lib/limit's bucket, with permits for time: owed are
-- `owed` permits and `part` of one in 1/per. In 1/per, a microsecond pays
-- `limit`; so nothing is lost or won by rounding, however often it is asked.
-- Redis' numbers are doubles, exact up to 2^53.

-- The quotient and the rest of x * y / m, for x < m < 2^42 and 0 <= y < 2^30: ten bits
-- of y at a time, so that no step passes 2^53.
local function muldiv(x, y, m)
  local q, r = 0, 0
  for shift = 20, 0, -10 do
    r = r * 1024 + x * (math.floor(y / 2 ^ shift) % 1024)
    local rest = math.fmod(r, m)
    q, r = q * 1024 + (r - rest) / m, rest
  end
  return q, r
end

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local version, limit, per, capacity = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local owed, part, edited = 0, 0, false

local bucket = redis.call('GET', KEYS[1])
if bucket then
  local v, l, p, c, at
  v, l, p, c, owed, part, at = cmsgpack.unpack(bucket)
  -- Paid since then, by the rate that was in force.
  local past = now > at and now - at or 0
  local rest = math.fmod(past, p)
  local paid, bit = muldiv(rest, l, p)
  paid = paid + (past - rest) / p * l
  owed, part = owed - paid, part - bit
  if part < 0 then owed, part = owed - 1, part + p end
  if owed < 0 then owed, part = 0, 0 end
  if version <= v then
    version, limit, per, capacity = v, l, p, c
  elseif l ~= limit or p ~= per or c ~= capacity then
    edited = true
    if part > 0 then owed, part = owed + 1, 0 end
    if owed > capacity then owed = capacity end
  end
end

-- How long until so many permits more than are owed now are paid for, in µs, up to a whole one.
local function pays(permits)
  local n = owed + permits
  if n < 0 or n == 0 and part == 0 then return 0 end
  local rest = math.fmod(per, limit)
  local q, r = muldiv(rest, n, limit)
  return (per - rest) / limit * n + q + math.ceil((r + part) / limit)
end

-- A bucket that owes nothing is like one that is not there, so it need not stay.
local function save()
  redis.call('SET', KEYS[1], cmsgpack.pack(version, limit, per, capacity, owed, part, now), 'PX', math.ceil(pays(0) / 1000) + 1000)
end
