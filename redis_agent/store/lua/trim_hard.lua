#!lua flags=allow-oom
-- Trim a stream that has passed its hard limit, whatever groups have read: bounded memory is worth more by then. What
-- some group had not read and acked is counted, for good. At most 1000 a call, and of large entries what makes a megabyte.
-- A group that must be there and is not, counts as one that has read up to its floor: it will be created there.
-- KEYS: stream, scheduler, floor
-- ARGV: hard_limit, group
-- returns: {removed, unread}: entries removed, and how many of them some group had not read and acked
-- cost: O(N * G) for N entries removed and G groups
local STREAM = KEYS[1]
local surplus = redis.call('XLEN', STREAM) - tonumber(ARGV[1])
if surplus <= 0 then
  return {0, 0}
end
local function parts(id)
  local ms, seq = id:match('(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local ids, from, bytes = {}, '-', 0
while #ids < math.min(surplus, 1000) and bytes <= 1048576 do
  local step = redis.call('XRANGE', STREAM, from, '+', 'COUNT', math.min(10, math.min(surplus, 1000) - #ids))
  for _, entry in ipairs(step) do
    ids[#ids + 1] = entry[1]
    for _, value in ipairs(entry[2]) do
      bytes = bytes + #value
    end
  end
  from = '(' .. ids[#ids]
end
local unread, needed, missing = 0, {}, true
local function must_be_read(delivered)
  local ms, seq = parts(delivered)
  for _, id in ipairs(ids) do
    local id_ms, id_seq = parts(id)
    if id_ms > ms or (id_ms == ms and id_seq > seq) then
      needed[id] = true
    end
  end
end
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
  for _, row in ipairs(redis.call('XPENDING', STREAM, group, ids[1], ids[#ids], #ids)) do
    needed[row[1]] = true
  end
end
if missing then
  must_be_read(redis.call('GET', KEYS[3]) or '0-0')
end
for _, id in ipairs(ids) do
  if needed[id] then
    unread = unread + 1
  end
end
if unread > 0 then
  -- First, and not in the way: a count that cannot be kept must not let memory grow.
  redis.pcall('HINCRBY', KEYS[2], 'stream_dropped_unread', unread)
end
local last_ms, last_seq = ids[#ids]:match('(%d+)-(%d+)')
local next_id = last_ms .. '-' .. string.format('%.0f', tonumber(last_seq) + 1)
if tonumber(last_seq) >= 2 ^ 53 then -- beyond what Lua counts exactly
  next_id = string.format('%.0f', tonumber(last_ms) + 1) .. '-0'
end
return {redis.call('XTRIM', STREAM, 'MINID', '=', next_id), unread}
