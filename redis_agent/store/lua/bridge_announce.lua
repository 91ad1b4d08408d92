#!lua flags=allow-oom
-- Say something on the control channel, as the lease's holder only.
-- KEYS: lease
-- ARGV: value, channel, message, publish (PUBLISH or SPUBLISH)
-- returns: 1 if said, 0 if the lease is not ours
-- cost: O(N) for N bridges
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call(ARGV[4], ARGV[2], ARGV[3])
return 1
