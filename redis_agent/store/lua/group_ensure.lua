#!lua flags=allow-oom
-- Create a consumer group (and its stream) where it is missing, at its floor: nothing that was applied before is
-- delivered again, and nothing after it is skipped. Entries above the floor that were applied, as far as they are
-- remembered, are acked; those between them are parked, for others to reclaim.
-- A stream that was deleted goes on after the last id that was given out, so that no id is given out twice. One that others
-- have begun anew below that is read from its beginning. What was owed of the old one is counted as lost, once.
-- KEYS: stream, floor, above, account (above is apply_batch.lua's; for a group without one a key that is never written)
-- ARGV: group, name of the consumer to park entries with
-- returns: {created_at, lost}: the id the group was created at, or '' if it was there; how many entries were deleted
--          before they were acked, and not said so far
-- cost: O(G) for G groups of the stream; where the group was lost, O(N + R log R) for N entries from the floor to the
--       highest remembered id and R remembered ranges
local exists = redis.call('EXISTS', KEYS[1]) == 1
if exists then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if info[2] == ARGV[1] then
      return {'', 0}
    end
  end
end
local floor, records = redis.pcall('GET', KEYS[2]), redis.pcall('HGETALL', KEYS[3])
for key, found in pairs({[KEYS[2]] = floor, [KEYS[3]] = records}) do
  if type(found) == 'table' and found.err then
    -- Without them nobody knows what was applied: better to stand still than to apply it again.
    return redis.error_reply(found.err .. ' (key ' .. key .. ')')
  end
end
floor = floor or '0-0'

-- What is remembered, as ranges of ids that were all applied, ascending; single ids are ranges of one.
local function parts(id)
  local ms, seq = id:match('^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local ranges = {}
local function remember(first, last)
  local first_ms, first_seq = parts(first)
  local last_ms, last_seq = parts(last)
  ranges[#ranges + 1] = {first_ms, first_seq, last_ms, last_seq}
end
for n = 2, #records, 2 do
  local first, last = records[n]:match('^(.-)%.%.(.+)$')
  if first then
    remember(first, last)
  else
    for id in records[n]:gmatch('%S+') do
      remember(id, id)
    end
  end
end
table.sort(ranges, function(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end)

-- The highest id known to have been given out; a stream whose last one is lower is not the one that the floor is of.
local known = redis.pcall('HMGET', KEYS[4], 'last_id', 'owed', 'unsaid')
local owed, unsaid = math.max(0, tonumber(known[2] or nil) or 0), tonumber(known[3] or nil) or 0
local last, last_ms, last_seq = floor, parts(floor)
local function higher(ms, seq)
  return ms and (ms > last_ms or (ms == last_ms and seq > last_seq))
end
for n = 2, #records, 2 do
  local ms, seq = parts(records[n]:match('%d+%-%d+$'))
  if higher(ms, seq) then
    last, last_ms, last_seq = records[n]:match('%d+%-%d+$'), ms, seq
  end
end
if not exists then
  local ms, seq = parts(known[1] or '')
  if higher(ms, seq) then
    last = known[1]
  end
  if last ~= '0-0' then
    redis.call('XADD', KEYS[1], 'MAXLEN', 0, last, 'gone', '')
    floor, ranges = last, {}
    redis.call('SET', KEYS[2], floor)
    redis.call('DEL', KEYS[3])
  end
else
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for n = 1, #info, 2 do
    if info[n] == 'last-generated-id' and not higher(parts(info[n + 1])) and info[n + 1] ~= last then
      floor, ranges = '0-0', {}
      redis.call('DEL', KEYS[2], KEYS[3])
    end
  end
end
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], floor, 'MKSTREAM')

-- Entries come in ascending order, too: one walk along both.
local at = 1
local function was_applied(id)
  local ms, seq = parts(id)
  while ranges[at] and (ranges[at][3] < ms or (ranges[at][3] == ms and ranges[at][4] < seq)) do
    at = at + 1
  end
  local range = ranges[at]
  return range and (range[1] < ms or (range[1] == ms and range[2] <= seq))
end

while ranges[at] do
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 200, 'STREAMS', KEYS[1], '>')
  if not reply then
    break
  end
  local done, parked = {}, {}
  for _, entry in ipairs(reply[1][2]) do
    local list = was_applied(entry[1]) and done or parked
    list[#list + 1] = entry[1]
  end
  if #done > 0 then
    redis.call('XACK', KEYS[1], ARGV[1], unpack(done))
  end
  if #parked > 0 then -- nobody has seen them
    parked[#parked + 1], parked[#parked + 2], parked[#parked + 3] = 'RETRYCOUNT', 0, 'JUSTID'
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(parked))
  end
end

-- What is owed and is not there any more was lost. A long stream is not looked through: it was not begun anew just now.
local found = redis.call('XPENDING', KEYS[1], ARGV[1])[1]
if redis.call('XLEN', KEYS[1]) > 10000 then
  found = owed
elseif owed > found then
  local from = floor
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    for n = 3, #info, 2 do
      if info[2] == ARGV[1] and info[n] == 'last-delivered-id' then
        from = info[n + 1]
      end
    end
  end
  while found < owed do
    local step = redis.call('XRANGE', KEYS[1], '(' .. from, '+', 'COUNT', 100)
    if #step == 0 then
      break
    end
    found, from = found + #step, step[#step][1]
  end
end
local lost = unsaid + math.max(0, owed - found)
if lost > 0 and not known.err then
  redis.call('HINCRBY', KEYS[4], 'lost', lost)
  redis.call('HSET', KEYS[4], 'owed', math.min(owed, found), 'unsaid', 0)
end
return {floor, lost}
