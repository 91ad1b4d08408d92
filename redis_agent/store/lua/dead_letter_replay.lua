#!lua
-- Put one dead letter through the front door again: its bytes enter the stream of events as a new entry, and the
-- letter is gone, in one step, so that a crash can neither double nor lose it.
-- KEYS: dead_letters, stream, account
-- ARGV: id, now_ms
-- returns: the id of the new stream entry, or '' when there is no such letter
-- cost: O(1)
local rows = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if not rows[1] then
  return ''
end
local data = ''
local fields = rows[1][2]
for n = 1, #fields, 2 do
  if fields[n] == 'data' then
    data = fields[n + 1]
  end
end
-- include go_on
go_on(KEYS[2], KEYS[3])
local entry = redis.call('XADD', KEYS[2], '*', 'data', data, 'at', ARGV[2])
redis.pcall('HSET', KEYS[3], 'last_id', entry)
redis.pcall('HINCRBY', KEYS[3], 'owed', 1)
redis.call('XDEL', KEYS[1], ARGV[1])
return entry
