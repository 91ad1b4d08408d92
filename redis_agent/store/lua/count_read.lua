#!lua flags=allow-oom
-- Put right how many entries the server takes a group to have read, which is what it computes the lag from. Redis 7.0 does
-- not keep that number in its append-only file or on replicas: after a restart or a failover the lag may be too large by
-- a constant, for good. Only where nothing is unread is the right number known; the group stays where it is.
-- KEYS: stream
-- ARGV: group
-- returns: the lag that was wrong; 0 if it was right or unknown, or something is unread
-- cost: O(G) for G groups
local function facts(reply)
  local found = {}
  for n = 1, #reply, 2 do
    found[reply[n]] = reply[n + 1]
  end
  return found
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = facts(info)
  if group['name'] == ARGV[1] then
    local lag, delivered = group['lag'] or 0, group['last-delivered-id']
    if lag == 0 or redis.call('XRANGE', KEYS[1], '(' .. delivered, '+', 'COUNT', 1)[1] then
      return 0
    end
    local added = facts(redis.call('XINFO', 'STREAM', KEYS[1]))['entries-added']
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], delivered, 'ENTRIESREAD', added)
    return lag
  end
end
return 0
