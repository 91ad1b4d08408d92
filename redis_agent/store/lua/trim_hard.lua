#!lua
-- Trim a stream that has passed its hard limit, whatever groups have read: bounded memory is worth more by then.
-- KEYS: stream
-- ARGV: hard_limit
-- returns: entries removed
-- cost: O(N) for N entries removed, in whole nodes of the stream and at most 10,000 a call
if redis.call('XLEN', KEYS[1]) <= tonumber(ARGV[1]) then
  return 0
end
return redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[1], 'LIMIT', 10000)
