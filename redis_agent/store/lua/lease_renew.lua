#!lua flags=allow-oom
-- Leases are kept also while the server is out of memory: losing one then would only make things worse.
-- Prolong a lease that is still held with this very token.
-- KEYS: lease
-- ARGV: value, ttl_ms
-- returns: 1 if prolonged, 0 if it is somebody else's or nobody's
-- cost: O(1)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
