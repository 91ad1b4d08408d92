#!lua flags=allow-oom
-- Publish one alert of the outbox and ack it when somebody received it; or be done with it because nobody listened for
-- too long, or because a newer summary says what it says, or somebody muted it. Sent again after a lost reply, it finds the entry acked and
-- publishes nothing. Also while the server is out of memory: what it writes does not grow.
-- In a cluster PUBLISH counts the subscribers of this node alone; so there the caller has counted those of all nodes, and
-- without any nothing is published. Elsewhere heard_by is ''.
-- Replaceable is '1' for a periodic summary.
-- KEYS: lease, outbox, floor, undelivered, newest_summary, account, silence, silence_of_type
-- ARGV: lease_value, group, entry_id, channel, payload, ttl_ms, replaceable, heard_by
-- returns: receivers (> 0: delivered and acked; 0: nobody listened, nothing changed),
--          -1 when the entry is no longer pending, -2 when the lease is not ours,
--          -3 given up after ttl_ms without a receiver, -4 superseded by a newer summary (both acked and marked),
--          -5 silenced (likewise)
-- cost: O(S) for S subscribers
local OUTBOX, group, id = KEYS[2], ARGV[2], ARGV[3]
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -2
end
if #redis.call('XPENDING', OUTBOX, group, id, id, 1) == 0 then
  return -1
end

local function done()
  -- Alerts leave in order, so all before is done with this one; should one be pending all the same, it must not be lost.
  if #redis.call('XPENDING', OUTBOX, group, '-', '(' .. id, 1) == 0 then
    redis.call('SET', KEYS[3], id)
  end
  redis.call('XACK', OUTBOX, group, id)
  local owed = redis.pcall('HINCRBY', KEYS[6], 'owed', -1)
  if type(owed) == 'number' and owed < 0 then
    redis.call('HSET', KEYS[6], 'owed', 0)
  end
end

if ARGV[7] == '1' then
  local newest = redis.pcall('GET', KEYS[5])
  if type(newest) == 'string' and newest ~= id then
    -- It counts only while it stands in the outbox itself, behind this one.
    local behind = redis.pcall('XREVRANGE', OUTBOX, newest, '(' .. id, 'COUNT', 1)
    if behind[1] and behind[1][1] == newest then
      redis.pcall('SADD', KEYS[4], id)
      done()
      return -4
    end
  end
end

local muted = redis.pcall('EXISTS', KEYS[7], KEYS[8])
if type(muted) == 'number' and muted > 0 then
  redis.pcall('SADD', KEYS[4], id)
  done()
  return -5
end

local receivers = tonumber(ARGV[8])
if receivers ~= 0 then
  receivers = math.max(receivers or 0, redis.call('PUBLISH', ARGV[4], ARGV[5]))
end
if receivers > 0 then
  done()
  return receivers
end
local now = redis.call('TIME')
local age_ms = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(id:match('^%d+'))
if age_ms > tonumber(ARGV[6]) then
  redis.pcall('SADD', KEYS[4], id)
  done()
  return -3
end
return 0
