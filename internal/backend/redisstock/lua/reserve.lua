-- Holds units for a user, or says why not. The order of the checks is the
-- contract of stock.Ledger, and that of stock.Book.Reserve.
--
-- KEYS  1 m  2 u  3 s
-- ARGV  1 user  2 key  3 lines, packed: SKU, quantity, …  4 what the gateway keeps with the record
--       5 newest entry the caller has seen
-- and only with a request that has any of these, since every one costs:
-- KEYS  4 c  5 t
-- ARGV  6 '1' for late money  7 ms, or '' for TIME  8, 9 digest and text of the terms, '' when
--       t has them  10… claims
-- Answers the record, or {why, …}.
--
-- Most requests have one line: a call is written out for it, which spares the
-- table of its arguments.
local lines = {cmsgpack.unpack(ARGV[3])}
local n, m = #lines / 2, nil
if n == 1 then
  m = redis.call('HMGET', KEYS[1], 'epoch', 'place', 'rules', 'i:' .. lines[1])
else
  local ask = {'HMGET', KEYS[1], 'epoch', 'place', 'rules'}
  for i = 1, n do ask[i + 5] = 'i:' .. lines[2 * i - 1] end
  m = redis.call(unpack(ask))
end
if m[1] ~= EPOCH then return {'FENCED'} end
local seq, number, last = cmsgpack.unpack(m[2])
if tonumber(ARGV[5]) > seq then return lost(KEYS[1]) end

local mine = redis.call('HGET', KEYS[2], ARGV[1])
local records, count = nil, 0
if mine then
  records = {cmsgpack.unpack(mine)}
  count = #records
end
for r = 1, count, RECORD do
  if records[r] == ARGV[2] then
    return {'KNOWN', mine, tonumber(redis.call('HGET', KEYS[1], 'landed'))}
  end
end

local items = {}
for i = 1, n do
  if not m[i + 3] then return {'SKU', i} end
  items[i] = {cmsgpack.unpack(m[i + 3])}
end
for i = 10, #ARGV do
  if redis.call('SISMEMBER', KEYS[4], ARGV[i]) == 1 then return {'CLAIM'} end
end

local now = clock(ARGV[7], last)
local phase, opens, closes, hold, per_user = cmsgpack.unpack(m[3])
if ARGV[6] == '1' then
  if phase == CLOSED then return {'ENDED'} end
elseif phase >= DRAINING or now >= closes then
  return {'ENDED'}
elseif now < opens then
  return {'NOTOPEN', opens}
elseif phase == PAUSED then
  return {'PAUSED'}
end

local asked = 0
for i = 1, n do
  if lines[2 * i] > items[i][PER_ORDER] then return {'LIMIT', 'per_order', i, items[i][PER_ORDER]} end
  asked = asked + lines[2 * i]
end
local total, has = 0, {}
for r = 1, count, RECORD do
  local state = records[r + STATE]
  if state == HELD or state == CONFIRMED then
    local l = {cmsgpack.unpack(records[r + LINES])}
    for i = 1, #l, 2 do
      total = total + l[i + 1]
      has[l[i]] = (has[l[i]] or 0) + l[i + 1]
    end
  end
end
for i = 1, n do
  local limit = items[i][PER_USER]
  if limit > 0 and (has[lines[2 * i - 1]] or 0) + lines[2 * i] > limit then
    return {'LIMIT', 'per_user', i, limit}
  end
end
if per_user > 0 and total + asked > per_user then return {'LIMIT', 'per_activity', 0, per_user} end
if count / RECORD >= MAX_RESERVATIONS then return {'LIMIT', 'reservations', 0, MAX_RESERVATIONS} end
for i = 1, n do
  if items[i][FREE] < lines[2 * i] then return {'SHORT', i, items[i][FREE], items[i][HELD_UNITS]} end
end

-- From here on everything happens. The entry is first: if its id is not above
-- the stream's newest, nothing has been changed yet.
seq, number = seq + 1, number + 1
local record = cmsgpack.pack(ARGV[2], number, EPOCH_NUMBER, seq, HELD, now, now + hold, ARGV[3], ARGV[4])
local place = cmsgpack.pack(seq, number, now)
for i = 1, n do
  local item = items[i]
  item[FREE] = item[FREE] - lines[2 * i]
  item[HELD_UNITS] = item[HELD_UNITS] + lines[2 * i]
  items[i] = cmsgpack.pack(unpack(item))
end
local after = n == 1 and items[1] or table.concat(items)
redis.call('XADD', KEYS[3], EPOCH .. '-' .. seq, 'u', ARGV[1], 'r', record, 'c', after)
if n == 1 then
  redis.call('HSET', KEYS[1], 'place', place, 'i:' .. lines[1], after)
else
  local set = {'HSET', KEYS[1], 'place', place}
  for i = 1, n do set[2 * i + 3], set[2 * i + 4] = 'i:' .. lines[2 * i - 1], items[i] end
  redis.call(unpack(set))
end
redis.call('HSET', KEYS[2], ARGV[1], mine and mine .. record or record)
if ARGV[9] and ARGV[9] ~= '' then redis.call('HSET', KEYS[5], ARGV[8], ARGV[9]) end
if #ARGV > 9 then redis.call('SADD', KEYS[4], unpack(ARGV, 10)) end
return record
