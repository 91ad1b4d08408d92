#!lua flags=allow-oom
-- Trim the oldest entries of a stream, those over its length and those past their age, but never one that some group
-- has not read and acked. At most 1000 a call, and of large ones what makes a megabyte, so that the server is not held up
-- (it looks at whole entries); call again while it trims.
-- A group that must be there and is not, counts as one that has read up to its floor: it will be created there.
-- KEYS: stream, floor
-- ARGV: max_length, group, max_age_ms (0: whatever their age)
-- returns: {trimmed, over}: entries removed, and 1 or more while there may be more to remove: entries by which the
--          stream is still too long, or 1 where only age says so
-- cost: O(N) for N entries removed
local STREAM, max_age_ms = KEYS[1], tonumber(ARGV[3])
local surplus = redis.call('XLEN', STREAM) - tonumber(ARGV[1])
if surplus <= 0 and max_age_ms == 0 then
  return {0, 0}
end
local function before(a, b)
  local a_ms, a_seq = a:match('(%d+)-(%d+)')
  local b_ms, b_seq = b:match('(%d+)-(%d+)')
  if a_ms == b_ms then
    return tonumber(a_seq) < tonumber(b_seq)
  end
  return tonumber(a_ms) < tonumber(b_ms)
end

-- Where to cut: before `keep`, the first entry that must stay.
local born_after = -1
if max_age_ms > 0 then
  local time = redis.call('TIME')
  born_after = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - max_age_ms
end
local keep, from, looked, bytes = nil, '-', 0, 0
while not keep do
  local step = redis.call('XRANGE', STREAM, from, '+', 'COUNT', 10)
  if #step == 0 then
    break
  end
  for _, entry in ipairs(step) do
    local too_old = tonumber(entry[1]:match('^%d+')) < born_after
    if (looked >= surplus and not too_old) or looked >= 1000 or bytes > 1048576 then
      keep = entry[1]
      break
    end
    looked = looked + 1
    for _, value in ipairs(entry[2]) do
      bytes = bytes + #value
    end
  end
  from = '(' .. step[#step][1]
end
local whole = keep ~= nil
local function must_stay(id)
  if not keep or before(id, keep) then
    keep, whole = id, false
  end
end
local function must_be_read(delivered)
  local unread = redis.call('XRANGE', STREAM, '(' .. delivered, '+', 'COUNT', 1)
  if unread[1] then
    must_stay(unread[1][1])
  end
end
local missing = true
for _, info in ipairs(redis.call('XINFO', 'GROUPS', STREAM)) do
  local group, delivered
  for n = 1, #info, 2 do
    if info[n] == 'name' then
      group = info[n + 1]
    elseif info[n] == 'last-delivered-id' then
      delivered = info[n + 1]
    end
  end
  missing = missing and group ~= ARGV[2]
  must_be_read(delivered)
  local pending = redis.call('XPENDING', STREAM, group)
  if pending[1] > 0 then
    must_stay(pending[2])
  end
end
if missing then
  must_be_read(redis.call('GET', KEYS[2]) or '0-0')
end
local trimmed
if keep then
  trimmed = redis.call('XTRIM', STREAM, 'MINID', '=', keep)
else
  trimmed = redis.call('XTRIM', STREAM, 'MAXLEN', '=', 0) -- all of it is past its age
end
local over = math.max(0, surplus - trimmed)
if over == 0 and max_age_ms > 0 and whole and trimmed == looked and (looked >= 1000 or bytes > 1048576) then
  over = 1 -- only as many as one call may: the next ones may be past their age, too
end
return {trimmed, over}
