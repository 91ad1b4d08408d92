#!lua flags=allow-oom
-- Keep the outbox within its length: the oldest alerts go, also such as nobody has received yet, which are handed
-- back to be counted and said; what is kept of them goes, too. At most 100 a call; call again while the outbox is longer.
-- KEYS: outbox, undelivered, account, analyses
-- ARGV: group, max_length
-- returns: {over, data...}: entries by which it is still too long, then the data of every alert that went undelivered
-- cost: O(N) for N entries removed
local surplus = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[2])
if surplus <= 0 then
  return {0}
end
local function later(a, b)
  local a_ms, a_seq = a:match('(%d+)-(%d+)')
  local b_ms, b_seq = b:match('(%d+)-(%d+)')
  if a_ms == b_ms then
    return tonumber(a_seq) > tonumber(b_seq)
  end
  return tonumber(a_ms) > tonumber(b_ms)
end
local delivered
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if info[2] == ARGV[1] then
    for n = 3, #info, 2 do
      if info[n] == 'last-delivered-id' then
        delivered = info[n + 1]
      end
    end
  end
end
local rows = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(surplus, 100) + 1)
local reply = {0}
for n = 1, #rows - 1 do
  local id, fields = rows[n][1], rows[n][2]
  local unread = not delivered or later(id, delivered)
  local pending = not unread and redis.call('XACK', KEYS[1], ARGV[1], id) == 1
  redis.pcall('SREM', KEYS[2], id)
  redis.pcall('HDEL', KEYS[4], id)
  if unread or pending then
    local data = ''
    for f = 1, #fields, 2 do
      if fields[f] == 'data' then
        data = fields[f + 1]
      end
    end
    reply[#reply + 1] = data
  end
end
redis.call('XTRIM', KEYS[1], 'MINID', '=', rows[#rows][1])
redis.pcall('HINCRBY', KEYS[3], 'owed', 1 - #reply)
reply[1] = surplus - (#rows - 1)
return reply
