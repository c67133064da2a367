-- Ends a reservation, as stock.Book.Settle does.
--
-- KEYS  1 m  2 u  3 s
-- ARGV  1 user  2 epoch, 3 number of the reservation  4 outcome  5 ms or ''  6 newest entry seen
-- Answers {'NONE'}, {'SAME', state}, {'OTHER', state} or {'DONE', sequence}.
local m = redis.call('HMGET', KEYS[1], 'epoch', 'place')
if m[1] ~= EPOCH then return {'FENCED'} end
local seq, number, last = cmsgpack.unpack(m[2])
if tonumber(ARGV[6]) > seq then return lost(KEYS[1]) end

local mine = redis.call('HGET', KEYS[2], ARGV[1])
if not mine then return {'NONE'} end
local records = {cmsgpack.unpack(mine)}
local epoch, wanted, outcome = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local r
for at = 1, #records, RECORD do
  if records[at + NUMBER] == wanted and records[at + IN_EPOCH] == epoch then r = at end
end
if not r then return {'NONE'} end
local state = records[r + STATE]
if state == outcome or state == RETURNED and outcome == CONFIRMED then return {'SAME', state} end
if not (state == HELD and outcome ~= RETURNED or state == CONFIRMED and outcome == RETURNED) then
  return {'OTHER', state}
end

local from = state == HELD and HELD_UNITS or CONFIRMED_UNITS
local to = outcome == CONFIRMED and CONFIRMED_UNITS or FREE
local now = clock(ARGV[5], last)
seq = seq + 1
local lines = {cmsgpack.unpack(records[r + LINES])}
local set, after = {'HSET', KEYS[1], 'place', cmsgpack.pack(seq, number, now)}, ''
for i = 1, #lines, 2 do
  local item = {cmsgpack.unpack(redis.call('HGET', KEYS[1], 'i:' .. lines[i]))}
  item[from] = item[from] - lines[i + 1]
  item[to] = item[to] + lines[i + 1]
  if outcome == RETURNED then item[RETURNED_UNITS] = item[RETURNED_UNITS] + lines[i + 1] end
  local packed = cmsgpack.pack(unpack(item))
  set[#set + 1] = 'i:' .. lines[i]
  set[#set + 1] = packed
  after = after .. packed
end
redis.call('XADD', KEYS[3], EPOCH .. '-' .. seq, 'u', ARGV[1], 's', cmsgpack.pack(epoch, wanted, outcome, now),
  'l', records[r + LINES], 'c', after)
redis.call(unpack(set))
records[r + STATE] = outcome
redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack(unpack(records)))
return {'DONE', seq}
