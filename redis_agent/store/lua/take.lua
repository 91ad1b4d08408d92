#!lua
-- Look up entries that are pending under this consumer, and count this as a delivery of those that were handed out less
-- often than `together` times. The others are tried alone, and their delivery is counted when that begins
-- (count_delivery.lua): so what waits behind an entry that processes die of does not grow old with it.
-- KEYS: stream, reclaim
-- ARGV: group, consumer, together, then each id, ascending
-- returns: {entries, deliveries, deleted}: the entries as XRANGE has them; how often each was handed out, this time
--          included; ids that are gone from the stream, and pending no more
-- cost: O(N log M) for N ids and M entries
local STREAM, group, consumer, together = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local times, again = {}, {}
for n = 4, #ARGV do
  local row = redis.call('XPENDING', STREAM, group, ARGV[n], ARGV[n], 1, consumer)[1]
  if row then
    times[ARGV[n]] = row[4] + 1
    if row[4] < together then
      again[#again + 1] = ARGV[n]
    end
  end
end
if #again > 0 then
  redis.call('XCLAIM', STREAM, group, consumer, 0, unpack(again))
end
local entries, deliveries, deleted = {}, {}, {}
for n = 4, #ARGV do
  local id = ARGV[n]
  if times[id] then
    local entry = redis.call('XRANGE', STREAM, id, id)[1]
    if entry then
      entries[#entries + 1], deliveries[#deliveries + 1] = entry, times[id]
    else
      redis.call('XACK', STREAM, group, id) -- where XCLAIM has not dropped it
      deleted[#deleted + 1] = id
    end
  end
end
if #deleted > 0 then
  redis.pcall('HINCRBY', KEYS[2], 'deleted', #deleted)
end
return {entries, deliveries, deleted}
