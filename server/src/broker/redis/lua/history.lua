-- Reads a stream. Its first read begins its life; every read is a use of it.
--
-- KEYS: stream, meta.
-- ARGV: "1" for publications or "0" for the position alone; offset to start at, 0 for the beginning or, in reverse, the
-- top; most publications, 0 for all; "1" for newest first; seconds that the meta key is kept, 0 for ever; epoch to use if
-- there is none.
-- Answers { top, epoch } and, where publications are asked for, the stream's entries.

local known = redis.call('HMGET', KEYS[2], 'e', 's')
local epoch, top = known[1], known[2] or '0'
if not epoch then
    epoch = ARGV[6]
    redis.call('HSET', KEYS[2], 'e', epoch)
end
if ARGV[5] ~= '0' then
    redis.call('EXPIRE', KEYS[2], ARGV[5])
end
if ARGV[1] == '0' then
    return { top, epoch }
end

local query
if ARGV[4] == '1' then
    query = { 'XREVRANGE', KEYS[1], ARGV[2] == '0' and top or ARGV[2], '-' }
else
    query = { 'XRANGE', KEYS[1], ARGV[2], '+' }
end
if ARGV[3] ~= '0' then
    query[#query + 1] = 'COUNT'
    query[#query + 1] = ARGV[3]
end
return { top, epoch, redis.call(unpack(query)) }
