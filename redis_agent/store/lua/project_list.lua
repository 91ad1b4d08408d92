#!lua
-- Bring the copy of a list of raw events up to date: add what is new, or replace it whole.
-- Without a key for its version it is always replaced.
-- KEYS: list, version... (none where the experiment's id allows no key in the same slot)
-- ARGV: version_before ('' replaces it), version, max_length, forced (1: also what is newer), event...
-- returns: 1 if it is up to date, 0 if it is of another version than was thought, and nothing was changed
-- cost: O(N) for N events, and for what is replaced
local before, version, forced = ARGV[1], ARGV[2], ARGV[4] == '1'
local there = KEYS[2] and redis.pcall('GET', KEYS[2])
there = type(there) == 'string' and there or ''
if before ~= '' then
  if there ~= before then
    return 0
  end
elseif not forced and there ~= '' and (tonumber(there) or 0) > tonumber(version) then
  return 1
else
  redis.call('DEL', KEYS[1])
end
-- In slices: Lua passes a few thousand arguments at once at most.
for from = 5, #ARGV, 2000 do
  redis.call('RPUSH', KEYS[1], unpack(ARGV, from, math.min(from + 1999, #ARGV)))
end
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[3]), -1)
if KEYS[2] then
  redis.call('SET', KEYS[2], version)
end
return 1
