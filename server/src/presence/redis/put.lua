-- Adds or renews clients of one channel.
-- KEYS: expiry by client, info by client, expiry by user, count of clients by user.
-- ARGV: seconds to live, Unix time of expiry, 1 to keep the users too; then client, info, user of each client, each
-- client once. 500 at most: more would not fit on Lua's stack.
local expire, data, user_expire, user_clients = unpack(KEYS)
local ttl, expire_at, by_user = ARGV[1], ARGV[2], ARGV[3] == '1'

local infos, client_times, user_times, newcomers = {}, {}, {}, {}
for i = 4, #ARGV, 3 do
  local client, info, user = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  infos[#infos + 1] = client
  infos[#infos + 1] = info
  client_times[#client_times + 1] = expire_at
  client_times[#client_times + 1] = client
  if by_user then
    user_times[#user_times + 1] = expire_at
    user_times[#user_times + 1] = user
    if redis.call('HEXISTS', data, client) == 0 then
      newcomers[#newcomers + 1] = user
    end
  end
end

redis.call('HSET', data, unpack(infos))
redis.call('EXPIRE', data, ttl)
redis.call('ZADD', expire, unpack(client_times))
redis.call('EXPIRE', expire, ttl)
if by_user then
  for _, user in ipairs(newcomers) do
    redis.call('HINCRBY', user_clients, user, 1)
  end
  redis.call('EXPIRE', user_clients, ttl)
  redis.call('ZADD', user_expire, unpack(user_times))
  redis.call('EXPIRE', user_expire, ttl)
end
