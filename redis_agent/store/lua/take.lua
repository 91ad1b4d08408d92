#!lua
-- Take up entries that are pending under this consumer: those that were handed out less often than `together` times come
-- with their data, and this counts as a delivery. The others are tried alone, each with its data and counted when that
-- begins (take_alone.lua): so what waits behind an entry that processes die of does not grow old with it, and what a
-- process has no room for does not kill it before it is counted.
-- KEYS: stream, reclaim
-- ARGV: group, consumer, together, then each id, ascending
-- returns: {entries, deliveries, deleted}: the entries as XRANGE has them, those for later with no fields; how often each
--          was handed out, this time included; ids that are gone from the stream, and pending no more
-- cost: O(N log M) for N ids and M entries
local STREAM, group, consumer, together = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local entries, deliveries, deleted = {}, {}, {}
for n = 4, #ARGV do
  local id = ARGV[n]
  local row = redis.call('XPENDING', STREAM, group, id, id, 1, consumer)[1]
  if row then
    local times, now = row[4] + 1, row[4] < together
    local held = redis.call('XCLAIM', STREAM, group, consumer, 0, id, 'RETRYCOUNT', now and times or row[4], 'JUSTID')
    local entry = held[1] and (not now and {id, {}} or redis.call('XRANGE', STREAM, id, id)[1])
    if entry then
      entries[#entries + 1], deliveries[#deliveries + 1] = entry, times
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
