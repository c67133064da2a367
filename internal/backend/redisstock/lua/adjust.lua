-- Edits the bucket by deltas and new rules, as stock.Book.Adjust does.
--
-- KEYS  1 m  2 d  3 s
-- ARGV  1 id  2 digest  3 the entry  4 ms or ''  5 newest entry seen  6 SKU or ''  7 delta
--       8, 9 limits per user and per order, or ''  10 per user over the activity, or ''
--       11 opens  12 closes  13 hold, 0 to leave it  14 phase, likewise  15 'out', 'in' or ''
-- Answers {'DONE', sequence}, {'SAME', sequence} or {why, …}.
local m = redis.call('HMGET', KEYS[1], 'epoch', 'place', 'rules', 'i:' .. ARGV[6])
if m[1] ~= EPOCH then return {'FENCED'} end
local seq, number, last = cmsgpack.unpack(m[2])
if tonumber(ARGV[5]) > seq then return lost(KEYS[1]) end

local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then return {known == ARGV[2] and 'SAME' or 'CONFLICT', seq} end
local delta, applied = tonumber(ARGV[7]), redis.call('HLEN', KEYS[2])
if applied >= MAX_ADJUSTMENTS or delta ~= 0 and applied >= MAX_DELTAS then return {'MANY', applied} end

local phase, opens, closes, hold, per_user = cmsgpack.unpack(m[3])
local wanted = tonumber(ARGV[14])
if ARGV[11] ~= '0' then opens = tonumber(ARGV[11]) end
if ARGV[12] ~= '0' then closes = tonumber(ARGV[12]) end
if opens >= closes then return {'WINDOW'} end
if wanted ~= 0 and wanted < phase and phase >= DRAINING then return {'PHASE', phase} end
local item
if ARGV[6] ~= '' then
  if not m[4] then return {'SKU', 1} end
  item = {cmsgpack.unpack(m[4])}
  if delta < 0 and item[FREE] < -delta then return {'SHORT', 1, item[FREE], item[HELD_UNITS]} end
  if delta > 0 and item[ALLOCATED] > MAX_UNITS - delta then return {'UNITS'} end
end

local now = clock(ARGV[4], last)
seq = seq + 1
if ARGV[13] ~= '0' then hold = tonumber(ARGV[13]) end
if ARGV[10] ~= '' then per_user = tonumber(ARGV[10]) end
if wanted ~= 0 then phase = wanted end
local rules = cmsgpack.pack(phase, opens, closes, hold, per_user)
local set, after = {'HSET', KEYS[1], 'place', cmsgpack.pack(seq, number, now), 'rules', rules}, ''
if item then
  item[ALLOCATED] = item[ALLOCATED] + delta
  item[FREE] = item[FREE] + delta
  if ARGV[15] == 'out' then item[OUT] = item[OUT] - delta end
  if ARGV[15] == 'in' then item[IN] = item[IN] + delta end
  if ARGV[8] ~= '' then item[PER_USER], item[PER_ORDER] = tonumber(ARGV[8]), tonumber(ARGV[9]) end
  after = cmsgpack.pack(unpack(item))
  set[#set + 1] = 'i:' .. ARGV[6]
  set[#set + 1] = after
end
redis.call('XADD', KEYS[3], EPOCH .. '-' .. seq, 'a', ARGV[3], 'x', now, 'p', rules, 'c', after)
redis.call(unpack(set))
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {'DONE', seq}
