#!lua flags=allow-oom
-- Put what was prepared for a partition into its place, all of it or nothing. What stood there goes, also where nothing was
-- prepared instead. Done once: the mark that all is prepared goes with it. It only makes room, so also without memory.
-- KEYS: arrived, then for each key: arriving, key
-- ARGV: (none)
-- returns: 1 if it was put there, 0 if there was nothing prepared any more, -1 if it is not known whether that is all
-- cost: O(N) for N keys
if redis.call('EXISTS', KEYS[1]) == 0 then
  for n = 2, #KEYS, 2 do
    if redis.call('EXISTS', KEYS[n]) == 1 then
      return -1
    end
  end
  return 0
end
for n = 2, #KEYS, 2 do
  redis.call('UNLINK', KEYS[n + 1])
  if redis.call('EXISTS', KEYS[n]) == 1 then
    redis.call('RENAME', KEYS[n], KEYS[n + 1])
  end
end
redis.call('DEL', KEYS[1])
return 1
