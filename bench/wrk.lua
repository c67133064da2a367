-- The load of one measurement, for wrk. Arguments after "--":
--   tokens   a file with one bearer token a line
--   mode     repeat: every request is written once, before the clock starts, one
--            per token, and sent in turn
--            fresh: every request has a key never used before, and a new user
--            until the tokens are used up
-- Prints one line of JSON when done.

local count = 0

function init(args)
	local lines = {}
	for line in io.lines(args[1]) do lines[#lines + 1] = line end
	local total = #lines
	local body = '{"sku":"bench-sku","quantity":1}'
	-- LuaJIT hashes a long string by four bytes each at its start, its end, its
	-- half and its quarter. With the token's signature at the half they differ;
	-- else all requests would share one chain of the string table, and the
	-- generator would spend its core on walking it.
	local head = "POST " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\nAuthorization: Bearer "
	local middle = "\r\nIdempotency-Key: "
	local tail = "\r\nContent-Type: application/json\r\nContent-Length: " .. #body ..
		"\r\nAccept: application/json\r\nUser-Agent: Mozilla/5.0 (Linux; Android 14; Mobile)\r\n\r\n" .. body
	local run = args[3]
	if args[2] == "repeat" then
		for i = 1, total do
			lines[i] = head .. lines[i] .. middle .. string.format("%s-%08d", run, i) .. tail
		end
		request = function()
			count = count % total + 1
			return lines[count]
		end
	else
		request = function()
			count = count + 1
			return head .. lines[(count - 1) % total + 1] .. middle .. run .. "-" .. string.format("%08d", count) .. tail
		end
	end
end

function done(summary, latency, requests)
	local e = summary.errors
	io.write(string.format('{"requests":%d,"micros":%d,"bytes":%d,"status_errors":%d,"socket_errors":%d,' ..
		'"p50_us":%d,"p99_us":%d,"max_us":%d}\n', summary.requests, summary.duration, summary.bytes, e.status,
		e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99), latency.max))
end
