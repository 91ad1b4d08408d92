#!lua flags=allow-oom
-- Give the bridge's lease back, if it is still held with this very token, and let the others know.
-- KEYS: lease, ready
-- ARGV: value, owner, channel, publish (PUBLISH or SPUBLISH)
-- returns: 1 if given back, 0 if it was not ours any more
-- cost: O(log N) for N bridges
redis.call('ZREM', KEYS[2], ARGV[2])
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call(ARGV[4], ARGV[3], 'free')
return 1
