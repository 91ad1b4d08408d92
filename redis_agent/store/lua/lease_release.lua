#!lua flags=allow-oom
-- Leases are kept also while the server is out of memory: losing one then would only make things worse.
-- Give a lease back, if it is still held with this very token.
-- KEYS: lease
-- ARGV: value
-- returns: 1 if given back, 0 if it was not ours any more
-- cost: O(1)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
