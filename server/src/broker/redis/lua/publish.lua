-- Publishes with history. One call serves several publications, in order, so that the cost of a call is shared.
--
-- KEYS, three for each publication: stream, meta, result.
-- ARGV: "publish" or "spublish", then for each publication
--    1 payload
--    2 size of the history
--    3 seconds that the publications are kept
--    4 message channel
--    5 seconds that the meta key is kept, 0 for ever
--    6 epoch to use if a new one is needed
--    7 seconds to remember the result, empty without an idempotency key
--    8 "1" to announce the publication before it, too
--    9 version, 0 for none
--   10 version epoch
-- Answers a list with, for each publication, either { offset, epoch, remembered, outdated } or the text of an error.

local announce = ARGV[1]

-- Whole numbers as text: Lua's own conversion turns large ones into powers of ten.
local function digits(number)
    return string.format('%.0f', number)
end

-- Whether decimal a >= b. Compared as text, since Lua's numbers are exact only up to 2^53.
local function at_least(a, b)
    return #a > #b or (#a == #b and a >= b)
end

local function publish(key, arg)
    local stream, meta, result = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    local payload, new_epoch, remember = ARGV[arg], ARGV[arg + 5], ARGV[arg + 6]
    local version, version_epoch = ARGV[arg + 8], ARGV[arg + 9]

    if remember ~= '' then
        local seen = redis.call('HMGET', result, 'e', 's')
        if seen[1] then
            return { seen[2] or '0', seen[1], 1, 0 }
        end
    end

    local epoch = redis.call('HGET', meta, 'e')
    if not epoch then
        epoch = new_epoch
        redis.call('HSET', meta, 'e', epoch)
    end

    if version ~= '0' then
        local last = redis.call('HMGET', meta, 'v', 've', 's')
        if last[1] and (version_epoch == '' or version_epoch == last[2]) and at_least(last[1], version) then
            return { last[3] or '0', epoch, 0, 1 }
        end
        redis.call('HSET', meta, 'v', version, 've', version_epoch)
    end

    local offset = redis.call('HINCRBY', meta, 's', 1)
    if ARGV[arg + 4] ~= '0' then
        redis.call('EXPIRE', meta, ARGV[arg + 4])
    end

    local previous = ''
    if ARGV[arg + 7] == '1' and offset ~= 1 then
        local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
        if last then
            previous = last[2][2]
        end
    end
    if offset == 1 then
        -- What a stream without its meta key holds belongs to another life.
        redis.call('DEL', stream)
    end

    local added = redis.pcall('XADD', stream, 'MAXLEN', ARGV[arg + 1], digits(offset), 'd', payload)
    if type(added) == 'table' and added.err then
        if not string.find(added.err, 'equal or smaller', 1, true) then
            error(added)
        end
        -- The meta key has lost writes that the stream still has. Going on would give offsets a second time under the same
        -- epoch: the stream begins a new life instead.
        epoch, offset, previous = new_epoch, 1, ''
        redis.call('HSET', meta, 'e', epoch, 's', '1')
        redis.call('DEL', stream)
        redis.call('XADD', stream, 'MAXLEN', ARGV[arg + 1], '1', 'd', payload)
    end
    redis.call('EXPIRE', stream, ARGV[arg + 2])

    local message
    if ARGV[arg + 7] == '1' then
        message = '__d1:' .. digits(offset) .. ':' .. epoch .. ':' .. #previous .. ':' .. previous .. ':' .. #payload .. ':' .. payload
    else
        message = '__p1:' .. digits(offset) .. ':' .. epoch .. '__' .. payload
    end
    redis.call(announce, ARGV[arg + 3], message)

    if remember ~= '' then
        redis.call('HSET', result, 'e', epoch, 's', digits(offset))
        redis.call('EXPIRE', result, remember)
    end
    return { digits(offset), epoch, 0, 0 }
end

local answers = {}
for number = 0, #KEYS / 3 - 1 do
    -- What is wrong with one publication must not take the others with it.
    local done, answer = pcall(publish, number * 3 + 1, number * 10 + 2)
    if not done then
        answer = type(answer) == 'table' and answer.err or tostring(answer)
    end
    answers[#answers + 1] = answer
end
return answers
