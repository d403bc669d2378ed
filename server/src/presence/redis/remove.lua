-- Removes a client of one channel.
-- KEYS: expiry by client, info by client, expiry by user, count of clients by user.
-- ARGV: client, user, 1 if the users are kept too.
local expire, data, user_expire, user_clients = unpack(KEYS)
local client, user, by_user = ARGV[1], ARGV[2], ARGV[3] == '1'

-- A client that is not there was taken off its user already.
local counted = by_user and redis.call('HEXISTS', data, client) == 1
redis.call('HDEL', data, client)
redis.call('ZREM', expire, client)
if counted and redis.call('HINCRBY', user_clients, user, -1) <= 0 then
  redis.call('ZREM', user_expire, user)
  redis.call('HDEL', user_clients, user)
end
