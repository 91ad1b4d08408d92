#!lua
-- Create a consumer group (and its stream) where it is missing, at its floor: nothing that was applied before is
-- delivered again, and nothing after it is skipped. Entries above the floor that were applied, as far as they are
-- remembered, are acked; those between them are parked, for others to reclaim.
-- KEYS: stream, floor, above (apply_batch.lua writes it; a key that is never written for a group without one)
-- ARGV: group, name of the consumer to park entries with
-- returns: the id the group was created at, or '' if it was there
-- cost: O(G) for G groups of the stream; where the group was lost, O(N) for N entries from the floor to the highest
--       remembered id
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if info[2] == ARGV[1] then
      return ''
    end
  end
end
local floor = redis.call('GET', KEYS[2]) or '0-0'
local records = redis.call('HGETALL', KEYS[3])
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], floor, 'MKSTREAM')

local function parts(id)
  local ms, seq = id:match('^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function later(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  if a_ms == b_ms then
    return a_seq > b_seq
  end
  return a_ms > b_ms
end

local ranges, applied, highest = {}, {}, floor
for n = 2, #records, 2 do
  local first, last = records[n]:match('^(.-)%.%.(.+)$')
  if first then
    ranges[#ranges + 1] = {first, last}
  else
    for id in records[n]:gmatch('%S+') do
      applied[id] = true
      last = id
    end
  end
  if later(last, highest) then
    highest = last
  end
end

local function was_applied(id)
  if applied[id] then
    return true
  end
  for _, range in ipairs(ranges) do
    if not later(range[1], id) and not later(id, range[2]) then
      return true
    end
  end
  return false
end

local reached = floor
while later(highest, reached) do
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 200, 'STREAMS', KEYS[1], '>')
  if not reply then
    break
  end
  local done = {}
  for _, entry in ipairs(reply[1][2]) do
    reached = entry[1]
    if was_applied(reached) then
      done[#done + 1] = reached
    end
  end
  if #done > 0 then
    redis.call('XACK', KEYS[1], ARGV[1], unpack(done))
  end
end
return floor
