#!lua flags=allow-oom
-- Create a consumer group (and its stream) where it is missing, at its floor: nothing that was applied before is
-- delivered again, and nothing after it is skipped. Entries above the floor that were applied, as far as they are
-- remembered, are acked; those between them are parked, for others to reclaim.
-- KEYS: stream, floor, above (apply_batch.lua writes it; a key that is never written for a group without one)
-- ARGV: group, name of the consumer to park entries with
-- returns: the id the group was created at, or '' if it was there
-- cost: O(G) for G groups of the stream; where the group was lost, O(N + R log R) for N entries from the floor to the
--       highest remembered id and R remembered ranges
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if info[2] == ARGV[1] then
      return ''
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
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], floor, 'MKSTREAM')

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
  local done = {}
  for _, entry in ipairs(reply[1][2]) do
    if was_applied(entry[1]) then
      done[#done + 1] = entry[1]
    end
  end
  if #done > 0 then
    redis.call('XACK', KEYS[1], ARGV[1], unpack(done))
  end
end
return floor
