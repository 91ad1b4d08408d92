#!lua
-- Trim the oldest entries of a stream that is over its length, but never one that some group has not
-- read and acked. At most 100 a call, so that the server is not held up (it looks at whole entries); call again while it
-- trims.
-- KEYS: stream
-- ARGV: max_length
-- returns: {trimmed, over}: entries removed, and entries by which the stream is still too long
-- cost: O(N) for N entries removed
local surplus = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[1])
if surplus <= 0 then
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
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(surplus, 100) + 1)
local keep = oldest[#oldest][1]
local function must_stay(id)
  if before(id, keep) then
    keep = id
  end
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group, delivered
  for n = 1, #info, 2 do
    if info[n] == 'name' then
      group = info[n + 1]
    elseif info[n] == 'last-delivered-id' then
      delivered = info[n + 1]
    end
  end
  local unread = redis.call('XRANGE', KEYS[1], '(' .. delivered, '+', 'COUNT', 1)
  if unread[1] then
    must_stay(unread[1][1])
  end
  local pending = redis.call('XPENDING', KEYS[1], group)
  if pending[1] > 0 then
    must_stay(pending[2])
  end
end
local trimmed = redis.call('XTRIM', KEYS[1], 'MINID', '=', keep)
return {trimmed, math.max(0, surplus - trimmed)}
