#!lua
-- Create a consumer group (and its stream) where it is missing, at its floor: nothing that was
-- applied before is delivered again, and nothing after it is skipped.
-- KEYS: stream, floor
-- ARGV: group
-- returns: the id the group was created at, or '' if it was there
-- cost: O(G) for G groups of the stream
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if info[2] == ARGV[1] then
      return ''
    end
  end
end
local floor = redis.call('GET', KEYS[2]) or '0-0'
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], floor, 'MKSTREAM')
return floor
