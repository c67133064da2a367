-- One purchase in Redis, as it is commonly built, with nothing left out that
-- the answer depends on: known key, window, limit, stock, deduct, mark the
-- user, remember the receipt, push the order for a worker to take. One script,
-- so it is atomic.
-- KEYS: activity, its users, its receipts, its queue
-- ARGV: user, key, quantity, order
-- Answers the order id, or one of the error codes.
local receipt = ARGV[1] .. '|' .. ARGV[2]
local known = redis.call('HGET', KEYS[3], receipt)
if known then return known end

local a = redis.call('HMGET', KEYS[1], 'opens_at', 'closes_at', 'per_user', 'free', 'held')
if not a[1] then return 'no_such_activity' end
local now = tonumber(redis.call('TIME')[1])
if now < tonumber(a[1]) then return 'not_open' end
if now >= tonumber(a[2]) then return 'ended' end

local quantity = tonumber(ARGV[3])
local mine = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
if mine + quantity > tonumber(a[3]) then return 'limit_reached' end

local free = tonumber(a[4])
if free <= 0 then return tonumber(a[5]) > 0 and 'all_held' or 'sold_out' end
if free < quantity then return 'insufficient' end

redis.call('HINCRBY', KEYS[1], 'free', -quantity)
redis.call('HINCRBY', KEYS[1], 'held', quantity)
redis.call('HINCRBY', KEYS[2], ARGV[1], quantity)
redis.call('HSET', KEYS[3], receipt, ARGV[4])
redis.call('RPUSH', KEYS[4], ARGV[4] .. '|' .. receipt .. '|' .. ARGV[3])
return ARGV[4]
