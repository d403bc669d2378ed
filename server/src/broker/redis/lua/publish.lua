-- Publishes with history. One call serves several publications, so that the cost of a call is shared, and what several of one
-- stream have in common is done once for all of them.
--
-- KEYS, three for each run of publications of one stream: stream, meta, result.
-- ARGV: "publish" or "spublish", then for each run
--    1 number of publications; 1 if there is an idempotency key or a version
--    2 size of the history
--    3 seconds that the publications are kept
--    4 message channel
--    5 seconds that the meta key is kept, 0 for ever
--    6 epoch to use if a new one is needed
--    7 seconds to remember the result, empty without an idempotency key
--    8 version, 0 for none
--    9 version epoch
--   and for each of its publications
--   10 "1" to announce the publication before it, too
--   11 payload
-- Answers a list with, for each run, either { offset of its last, epoch, remembered, outdated } or the text of an error.

local call = redis.call
local announce = ARGV[1]

-- Whole numbers as text: Lua's own conversion turns large ones into powers of ten.
local function digits(number)
    return string.format('%.0f', number)
end

-- Whether decimal a >= b. Compared as text, since Lua's numbers are exact only up to 2^53.
local function at_least(a, b)
    return #a > #b or (#a == #b and a >= b)
end

-- Adds an entry. Answers false if the stream has that offset already.
local function add(stream, size, offset, payload)
    local added
    if size then
        added = redis.pcall('XADD', stream, 'MAXLEN', size, offset, 'd', payload)
    else
        added = redis.pcall('XADD', stream, offset, 'd', payload)
    end
    if type(added) == 'table' and added.err then
        if string.find(added.err, 'equal or smaller', 1, true) then
            return false
        end
        error(added)
    end
    return true
end

local function publish(key, arg)
    local stream, meta, result = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    local count, size, channel = tonumber(ARGV[arg]), ARGV[arg + 1], ARGV[arg + 3]
    local new_epoch, remember = ARGV[arg + 5], ARGV[arg + 6]
    local version, version_epoch = ARGV[arg + 7], ARGV[arg + 8]

    if remember ~= '' then
        local seen = call('HMGET', result, 'e', 's')
        if seen[1] then
            return { seen[2] or '0', seen[1], 1, 0 }
        end
    end

    local epoch = call('HGET', meta, 'e')
    if not epoch then
        epoch = new_epoch
        call('HSET', meta, 'e', epoch)
    end

    if version ~= '0' then
        local last = call('HMGET', meta, 'v', 've', 's')
        if last[1] and (version_epoch == '' or version_epoch == last[2]) and at_least(last[1], version) then
            return { last[3] or '0', epoch, 0, 1 }
        end
        call('HSET', meta, 'v', version, 've', version_epoch)
    end

    local before = call('HINCRBY', meta, 's', ARGV[arg]) - count
    if ARGV[arg + 4] ~= '0' then
        call('EXPIRE', meta, ARGV[arg + 4])
    end

    local previous = ''
    if ARGV[arg + 9] == '1' and before ~= 0 then
        local last = call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
        if last then
            previous = last[2][2]
        end
    end
    if before == 0 then
        -- What a stream without its meta key holds belongs to another life.
        call('DEL', stream)
    end

    for number = 1, count do
        local delta, payload = ARGV[arg + 7 + 2 * number], ARGV[arg + 8 + 2 * number]
        -- The last one trims for all.
        local most = number == count and size
        local offset = digits(before + number)
        if not add(stream, most, offset, payload) then
            -- The meta key has lost writes that the stream still has. Going on would give offsets a second time under the
            -- same epoch: the stream begins a new life instead. Only the first of a run can meet this.
            epoch, before, previous, offset = new_epoch, 0, '', '1'
            call('HSET', meta, 'e', epoch, 's', ARGV[arg])
            call('DEL', stream)
            add(stream, most, offset, payload)
        end
        if number == count then
            call('EXPIRE', stream, ARGV[arg + 2])
        end
        if delta == '1' then
            call(announce, channel, '__d1:' .. offset .. ':' .. epoch .. ':' .. #previous .. ':' .. previous
                .. ':' .. #payload .. ':' .. payload)
        else
            call(announce, channel, '__p1:' .. offset .. ':' .. epoch .. '__' .. payload)
        end
        previous = payload
    end

    local last = digits(before + count)
    if remember ~= '' then
        call('HSET', result, 'e', epoch, 's', last)
        call('EXPIRE', result, remember)
    end
    return { last, epoch, 0, 0 }
end

local answers = {}
local arg = 2
for run = 1, #KEYS / 3 do
    -- What is wrong with one stream must not take the others with it.
    local done, answer = pcall(publish, run * 3 - 2, arg)
    if not done then
        answer = type(answer) == 'table' and answer.err or tostring(answer)
    end
    answers[run] = answer
    arg = arg + 9 + 2 * tonumber(ARGV[arg])
end
return answers
