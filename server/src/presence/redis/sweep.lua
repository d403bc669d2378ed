-- Drops the clients of one channel whose time is over, and counts those that are left.
-- KEYS: expiry by client, info by client, expiry by user, count of clients by user.
-- ARGV: Unix time, 1 if the users are kept too.
-- Answers the number of clients, and of users when they are kept, else 0.
local expire, data, user_expire, user_clients = unpack(KEYS)
local now, by_user = ARGV[1], ARGV[2] == '1'

-- Names given to one call: more than some thousands would not fit on Lua's stack.
local PART = 1000

local function drop(times, fields, names)
  for first = 1, #names, PART do
    redis.call('HDEL', fields, unpack(names, first, math.min(first + PART - 1, #names)))
  end
  redis.call('ZREMRANGEBYSCORE', times, '0', now)
end

-- The user of an info: the first field of its Protobuf message, a text; an anonymous user has none.
local function user_of(info)
  if string.byte(info, 1) ~= 0x0a then
    return ''
  end
  local length, scale, at = 0, 1, 2
  local byte = string.byte(info, at) or 0
  while byte >= 0x80 do
    length = length + (byte - 0x80) * scale
    scale, at = scale * 0x80, at + 1
    byte = string.byte(info, at) or 0
  end
  length = length + byte * scale
  return string.sub(info, at + 1, at + length)
end

local function uncount(client)
  local info = redis.call('HGET', data, client)
  if info then
    local user = user_of(info)
    if redis.call('HINCRBY', user_clients, user, -1) <= 0 then
      redis.call('ZREM', user_expire, user)
      redis.call('HDEL', user_clients, user)
    end
  end
end

local clients = redis.call('ZRANGEBYSCORE', expire, '0', now)
if #clients > 0 then
  if by_user then
    for _, client in ipairs(clients) do
      uncount(client)
    end
  end
  drop(expire, data, clients)
end
if not by_user then
  return { redis.call('HLEN', data), 0 }
end

local users = redis.call('ZRANGEBYSCORE', user_expire, '0', now)
if #users > 0 then
  drop(user_expire, user_clients, users)
end
return { redis.call('HLEN', data), redis.call('HLEN', user_clients) }
