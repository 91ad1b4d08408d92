#!lua flags=allow-oom
-- Leases are kept also while the server is out of memory: losing one then would only make things worse.
-- Take a lease that nobody else holds, with a fencing token that grows with every holder.
-- KEYS: lease, fence
-- ARGV: owner, ttl_ms
-- returns: the value "token:owner" of whoever holds the lease now
-- cost: O(1)
local holder = redis.call('GET', KEYS[1])
if holder then
  if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- the server's clock went back
  end
  if holder:match(':(.*)$') == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
  end
  return holder
end
local value = redis.call('INCR', KEYS[2]) .. ':' .. ARGV[1]
redis.call('SET', KEYS[1], value, 'PX', ARGV[2])
return value
