#!lua flags=allow-oom
-- A bridge asks for the lease; says on the way whether it is in step.
-- One that is not in step gets it only while no other that is has given a sign of life within the lease's time, and
-- after an outage, in which nobody could give one, only when those whose subscriptions stand were called and did not ask
-- for that long: `called` says since when they are called, `asked` when that was last looked at. A call that nobody has
-- looked at for half of that time was cut short by an outage itself, and is made again.
-- Then a new epoch begins, and its mark (of the same name) is published here, so that nothing comes between; the
-- position said with it is 0, because what is written need not be durable yet.
-- One whose subscription is not on this server is told so, and counts as not in step whatever it believes.
-- The answer to a claim that was granted is kept, so that it can be had again after a lost reply.
-- The epoch is '' when the bridge is not in step.
-- The alive_prefix is '' in a cluster, where subscriptions are on another node: then every bridge counts as subscribed.
-- KEYS: lease, fence, bridge, ready
-- ARGV: owner, ttl_ms, epoch, new_epoch, channel, alive_prefix, publish (PUBLISH or SPUBLISH)
-- returns: {'taken', value, written, epoch, epoch_before, leader_before, silent_ms},
--          {'held', value} by another, {'wait', member} for one that is in step, or {'deaf'} instead of both
-- cost: O(log N) for N bridges; O(N) for one that is not in step while the lease is free
local owner, ttl, channel = ARGV[1], tonumber(ARGV[2]), ARGV[5]
local most_ready = 64
-- Whether a bridge's subscription is on this server; one that we may not ask about counts as standing.
local function stands(bridge)
  if ARGV[6] == '' then
    return true
  end
  local reply = redis.pcall('PUBSUB', 'NUMSUB', ARGV[6] .. bridge)
  return reply.err ~= nil or reply[2] > 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local state = redis.call('HMGET', KEYS[3], 'written', 'epoch', 'leader', 'at', 'epoch_before', 'leader_before', 'silent_ms')
local written, epoch = state[1] or '0', state[2] or ''
local in_step = ARGV[3] ~= '' and ARGV[3] == epoch
local deaf = not stands(owner)

if in_step and not deaf then
  redis.call('ZADD', KEYS[4], now, owner)
  if redis.call('ZCARD', KEYS[4]) > most_ready then
    redis.call('ZREMRANGEBYSCORE', KEYS[4], now + ttl, '+inf') -- of a clock that went back since
    redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -most_ready - 1)
  end
else
  redis.call('ZREM', KEYS[4], owner)
end

local holder = redis.call('GET', KEYS[1])
if holder then
  if redis.call('PTTL', KEYS[1]) > ttl then
    redis.call('PEXPIRE', KEYS[1], ttl) -- the server's clock went back
  end
  if holder:match(':(.*)$') ~= owner then
    return deaf and {'deaf'} or {'held', holder}
  end
  redis.call('PEXPIRE', KEYS[1], ttl)
  return {'taken', holder, written, epoch, state[5] or '', state[6] or '', state[7] or '0'}
end

if in_step and deaf then
  return {'deaf'}
end
if not in_step then
  -- Scores in the future are of a clock that went back since.
  local others = redis.call('ZRANGEBYSCORE', KEYS[4], now - ttl, now + ttl, 'LIMIT', 0, 1)
  if others[1] then
    return {'wait', others[1]}
  end
  for _, other in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    if stands(other) then
      local call = redis.call('HMGET', KEYS[3], 'called', 'asked')
      local called, asked = tonumber(call[1] or now), tonumber(call[2] or '0')
      if called > now or asked > now or now - asked > ttl / 2 then
        called = now
        redis.call(ARGV[7], channel, 'free')
      end
      redis.call('HSET', KEYS[3], 'called', string.format('%.0f', called), 'asked', string.format('%.0f', now))
      if now - called <= ttl then
        return {'wait', other}
      end
      break
    end
  end
end

if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SET', KEYS[2], string.format('%.0f', now)) -- no token is given twice, also when the server forgot all
end
-- After a failover the number may be one that was given before; what the claimer offers is offered once.
local value = string.format('%.0f', redis.call('INCR', KEYS[2])) .. '.' .. ARGV[4] .. ':' .. owner
redis.call('SET', KEYS[1], value, 'PX', ttl)
local silent = '0'
if state[4] then
  silent = string.format('%.0f', math.max(0, now - tonumber(state[4])))
end
local begins = in_step and epoch or ARGV[4]
redis.call('HDEL', KEYS[3], 'called', 'asked')
redis.call('HSET', KEYS[3], 'epoch', begins, 'leader', owner, 'at', string.format('%.0f', now),
  'epoch_before', epoch, 'leader_before', state[3] or '', 'silent_ms', silent)
if not in_step then
  redis.call('DEL', KEYS[4])
  if epoch ~= '' or written ~= '0' then
    redis.call('HINCRBY', KEYS[3], 'gaps', 1)
    redis.call('HINCRBY', KEYS[3], 'gap_ms', silent)
  end
  redis.call(ARGV[7], channel, 'written ' .. begins .. ' 0 ' .. begins)
end
return {'taken', value, written, begins, epoch, state[3] or '', silent}
