#!lua flags=allow-oom
-- What is in hand is kept also while the server is out of memory: that is when it takes long.
-- Renew the hold on entries that are in hand for long, so that they are not taken over: only those that are still
-- pending under this consumer, and without counting as a delivery.
-- KEYS: stream
-- ARGV: group, consumer, then each id
-- returns: {renewed, deleted}: how many are held anew; how many were gone from the stream and are pending no more
-- cost: O(N) for N ids
local group, consumer = ARGV[1], ARGV[2]
local mine = {}
for n = 3, #ARGV do
  if redis.call('XPENDING', KEYS[1], group, ARGV[n], ARGV[n], 1, consumer)[1] then
    mine[#mine + 1] = ARGV[n]
  end
end
if #mine == 0 then
  return {0, 0}
end
mine[#mine + 1] = 'JUSTID'
local renewed = redis.call('XCLAIM', KEYS[1], group, consumer, 0, unpack(mine))
return {#renewed, #mine - 1 - #renewed}
