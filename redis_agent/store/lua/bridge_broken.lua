#!lua flags=allow-oom
-- The leader's row of messages has an end (its subscription broke, or the server lost positions).
-- Hand over to a bridge that is in step, if one whose subscription stands has given a sign of life within the lease's
-- time; otherwise begin a new epoch, whose mark (of the same name) is published here with position 0. Asked again with the same epoch,
-- it is not begun anew. While subscriptions of bridges in step stand that could give no sign in an outage, they are
-- called, and waited for as `bridge_claim` does.
-- Who is yielded to may find that its own row has an end, too: then the gap counts from where the leader's had one.
-- The new epoch is '' while nothing is received, the gap's length '' when there is none, may_yield 1 or 0.
-- The alive_prefix is '' in a cluster, where subscriptions are on another node: then every bridge counts as subscribed.
-- KEYS: lease, bridge, ready
-- ARGV: value, ttl_ms, owner, channel, new_epoch, gap_ms, may_yield, alive_prefix, publish (PUBLISH or SPUBLISH)
-- returns: {'fenced'}, {'yielded', member}, {'called', member} (ask again), {'alone'} or {'renumbered', written}
-- cost: O(N) for N bridges
local function stands(bridge)
  if ARGV[8] == '' then
    return true
  end
  local reply = redis.pcall('PUBSUB', 'NUMSUB', ARGV[8] .. bridge)
  return reply.err ~= nil or reply[2] > 0
end
local written = redis.call('HGET', KEYS[2], 'written') or '0'
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'fenced'}
end
if ARGV[5] ~= '' and redis.call('HGET', KEYS[2], 'epoch') == ARGV[5] then
  return {'renumbered', written}
end
redis.call('ZREM', KEYS[3], ARGV[3])
if ARGV[7] == '1' then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local ttl, silent = tonumber(ARGV[2]), nil
  local others = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
  for n = 1, #others, 2 do
    if stands(others[n]) then
      if math.abs(now - tonumber(others[n + 1])) <= ttl then
        redis.call('DEL', KEYS[1])
        if ARGV[6] ~= '' then
          redis.call('HSET', KEYS[2], 'at', string.format('%.0f', now - tonumber(ARGV[6])))
        end
        redis.call(ARGV[9], ARGV[4], 'free')
        return {'yielded', others[n]}
      end
      silent = silent or others[n]
    end
  end
  if silent then
    local call = redis.call('HMGET', KEYS[2], 'called', 'asked')
    local called, asked = tonumber(call[1] or now), tonumber(call[2] or '0')
    if called > now or asked > now or now - asked > ttl / 2 then
      called = now
      redis.call(ARGV[9], ARGV[4], 'free')
    end
    redis.call('HSET', KEYS[2], 'called', string.format('%.0f', called), 'asked', string.format('%.0f', now))
    if now - called <= ttl then
      return {'called', silent}
    end
  end
end
if ARGV[5] == '' then
  return {'alone'}
end
redis.call('DEL', KEYS[3])
redis.call('HDEL', KEYS[2], 'called', 'asked')
redis.call('HSET', KEYS[2], 'epoch', ARGV[5], 'leader', ARGV[3])
if ARGV[6] ~= '' then
  redis.call('HINCRBY', KEYS[2], 'gaps', 1)
  redis.call('HINCRBY', KEYS[2], 'gap_ms', ARGV[6])
end
redis.call(ARGV[9], ARGV[4], 'written ' .. ARGV[5] .. ' 0 ' .. ARGV[5])
return {'renumbered', written}
