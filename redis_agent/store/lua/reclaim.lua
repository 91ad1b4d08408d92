#!lua
-- One step of the scan for entries that a consumer has held for too long. All workers share one scan: where it stands
-- is kept, so that whoever comes next continues it, and a complete one is not begun again before its time.
-- `idle_ms` is too long; `every_ms` lies between two complete scans. After a time in which no worker came by (an outage, a paused server) the first step takes nothing: nobody
-- could renew what he holds, and everybody gets the time to.
-- The server measures idleness by its clock. Set back, it would count none of what was handed out before as idle until the
-- old time comes again; so all that is pending counts as handed out now. (Before that, XPENDING shows 0 for all of it.)
-- KEYS: stream, reclaim
-- ARGV: group, consumer, idle_ms, every_ms, count
-- returns: {more, ids, deleted, problem}: 1 when the scan is not complete; what was taken over and is not counted as
--          delivered yet (take.lua does that); ids that were pending but are gone from the stream, dropped from the
--          pending ones; why the scan's place cannot be kept, or ''
-- cost: O(N) for N = count: at most 10 * count pending entries are looked at
local STREAM, PLACE = KEYS[1], KEYS[2]
local group, consumer, idle_ms, every_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local place = redis.pcall('HMGET', PLACE, 'cursor', 'seen_ms', 'done_ms', 'rested')
local problem = place.err or ''
local cursor = '0-0'
if problem == '' then
  cursor = place[1] and place[1]:match('^%d+%-%d+$') or '0-0'
  local seen, done = tonumber(place[2] or nil), tonumber(place[3] or nil)
  if seen and seen > now + 1000 then
    redis.call('HSET', PLACE, 'rebase', '-')
  end
  local unseen = not seen or seen > now or now - seen > idle_ms
  redis.call('HSET', PLACE, 'seen_ms', string.format('%.0f', now))
  if unseen and every_ms > 0 and place[4] ~= '1' then
    redis.call('HSET', PLACE, 'rested', 1)
    return {0, {}, {}, problem}
  end
  if cursor == '0-0' and done and done <= now and now - done < every_ms then
    return {0, {}, {}, problem}
  end
end

local rebase = problem == '' and redis.call('HGET', PLACE, 'rebase')
if rebase then
  local rows = redis.call('XPENDING', STREAM, group, rebase, '+', 10 * tonumber(ARGV[5]))
  for _, row in ipairs(rows) do
    redis.call('XCLAIM', STREAM, group, row[2], 0, row[1], 'JUSTID')
  end
  if #rows == 10 * tonumber(ARGV[5]) then
    redis.call('HSET', PLACE, 'rebase', '(' .. rows[#rows][1])
    return {1, {}, {}, problem}
  end
  redis.call('HDEL', PLACE, 'rebase')
end

local reply = redis.call('XAUTOCLAIM', STREAM, group, consumer, idle_ms, cursor, 'COUNT', ARGV[5], 'JUSTID')
local deleted = reply[3] or {}
local complete = reply[1] == '0-0'
if problem == '' then
  redis.call('HSET', PLACE, 'cursor', reply[1], 'rested', 0)
  if complete then
    redis.call('HSET', PLACE, 'done_ms', string.format('%.0f', now))
  end
  if #deleted > 0 then
    redis.call('HINCRBY', PLACE, 'deleted', #deleted)
  end
end
return {complete and 0 or 1, reply[2], deleted, problem}
