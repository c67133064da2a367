-- The head of every script that decides. In front of it stand EPOCH and TAG as
-- this bucket's keeper has set them: the epoch is in the text of a script, so
-- that a Redis which has lost something does not know it (see DESIGN.md).
local EPOCH_NUMBER = tonumber(EPOCH)

-- A record: key, number, epoch, sequence, state, at, expires, lines, rest. An
-- offset from its first value, or their number.
local RECORD, NUMBER, IN_EPOCH, STATE, LINES = 9, 1, 2, 4, 7

-- An item: index, per user, per order, allocated, free, held, confirmed,
-- returned, moved out, moved in.
local PER_USER, PER_ORDER, ALLOCATED, FREE, HELD_UNITS, CONFIRMED_UNITS, RETURNED_UNITS, OUT, IN = 2, 3, 4, 5, 6, 7, 8, 9, 10

-- States, phases and bounds as package stock numbers them.
local HELD, CONFIRMED, RELEASED, EXPIRED, RETURNED = 2, 3, 4, 5, 6
local PAUSED, DRAINING, CLOSED = 2, 3, 4
local MAX_RESERVATIONS, MAX_UNITS = 64, 1000000000
local MAX_DELTAS, MAX_ADJUSTMENTS = 100000, 200000

-- No entry is older than the one before it.
local function clock(given, last)
  local now = tonumber(given)
  if not now then
    local t = redis.call('TIME')
    now = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return now > last and now or last
end

-- Somebody has seen an entry that is not here: the bucket has lost its tail, and
-- accepts nothing until its keeper has seen to it.
local function lost(m)
  redis.call('HSET', m, 'epoch', '0')
  return {'FENCED'}
end
