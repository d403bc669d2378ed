-- Publishes without history, unless the idempotency key was used before.
--
-- KEYS: result. ARGV: payload, message channel, "publish" or "spublish", seconds to remember the key.
-- Answers 1 if it published. The result is a hash whose field e is the epoch, empty without history; s would be the offset.

local seen = redis.call('HMGET', KEYS[1], 'e', 's')
if seen[1] then
    return 0
end
redis.call(ARGV[3], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[1], 'e', '')
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
