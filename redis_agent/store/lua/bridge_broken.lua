#!lua flags=allow-oom
-- The leader's row of messages has an end (its subscription broke, or the server lost positions).
-- Hand over to a bridge that is in step, if one has given a sign of life within the lease's time; otherwise begin a
-- new epoch, whose mark (of the same name) is published here. Asked again with the same epoch, it is not begun anew.
-- The new epoch is '' while nothing is received, the gap's length '' when there is none, may_yield 1 or 0.
-- KEYS: lease, bridge, ready
-- ARGV: value, ttl_ms, owner, channel, new_epoch, gap_ms, may_yield
-- returns: {'fenced'}, {'yielded', member}, {'alone'} or {'renumbered', written}
-- cost: O(log N) for N bridges
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
  local others = redis.call('ZRANGEBYSCORE', KEYS[3], now - tonumber(ARGV[2]), now + tonumber(ARGV[2]), 'LIMIT', 0, 1)
  if others[1] then
    redis.call('DEL', KEYS[1])
    redis.call('PUBLISH', ARGV[4], 'free')
    return {'yielded', others[1]}
  end
end
if ARGV[5] == '' then
  return {'alone'}
end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[2], 'epoch', ARGV[5], 'leader', ARGV[3])
if ARGV[6] ~= '' then
  redis.call('HINCRBY', KEYS[2], 'gaps', 1)
  redis.call('HINCRBY', KEYS[2], 'gap_ms', ARGV[6])
end
redis.call('PUBLISH', ARGV[4], 'written ' .. ARGV[5] .. ' ' .. written .. ' ' .. ARGV[5])
return {'renumbered', written}
