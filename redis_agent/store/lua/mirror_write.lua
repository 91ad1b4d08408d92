#!lua
-- Write a batch of published events to the stream: as the lease's holder only, and each position once.
-- A batch sent again after a lost reply is recognised by its position and written no second time.
-- From inside the same step the other bridges are told how far the stream is written.
-- The confirmed position is '' for all that is written; traces are 'position context' of those events that are traced, each
-- followed by a space but the last.
-- KEYS: lease, stream, bridge, account
-- ARGV: value, epoch, first_position, given_up_from, channel, publish (PUBLISH or SPUBLISH), confirmed, traces, then what
--       was received together, in order: (received_ms, n, event * n)...
-- returns: {'written', position, given_up} with the position reached and how many were skipped for ever;
--          {'fenced', position, 0} when the lease is not ours; {'hole', position, 0} when positions in front of
--          given_up_from are missing, or the epoch is another one (the server lost its state)
-- cost: O(N) for N events
local state = redis.call('HMGET', KEYS[3], 'written', 'epoch')
local written = tonumber(state[1] or '0')
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'fenced', written, 0}
end
local first, given_up_from = tonumber(ARGV[3]), tonumber(ARGV[4])
if state[2] ~= ARGV[2] or given_up_from > written + 1 then
  return {'hole', written, 0}
end
-- include go_on
go_on(KEYS[2], KEYS[4])
local traces = {}
for position, context in ARGV[8]:gmatch('(%d+) (%S+)') do
  traces[tonumber(position)] = context
end
local stream, call = KEYS[2], redis.call
local last, arg, id = first - 1, 9, nil
while ARGV[arg] do
  local at, count = ARGV[arg], tonumber(ARGV[arg + 1])
  -- What is written already stands in front.
  for n = math.max(1, written - last + 1), count do
    local event, trace = ARGV[arg + 1 + n], traces[last + n]
    if trace then
      id = call('XADD', stream, '*', 'data', event, 'at', at, 'trace', trace)
    else
      id = call('XADD', stream, '*', 'data', event, 'at', at)
    end
  end
  last, arg = last + count, arg + 2 + count
end
if id then
  redis.pcall('HSET', KEYS[4], 'last_id', id)
  redis.pcall('HINCRBY', KEYS[4], 'owed', last - math.max(written + 1, first) + 1)
end
local given_up = math.max(0, first - written - 1)
if given_up > 0 then
  redis.call('HINCRBY', KEYS[3], 'given_up', given_up)
end
local reached = math.max(written, last)
local time = redis.call('TIME')
redis.call('HSET', KEYS[3], 'written', string.format('%.0f', reached),
  'at', string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)))
local said = ARGV[7]
if said == '' then
  said = string.format('%.0f', reached)
end
redis.call(ARGV[6], ARGV[5], 'written ' .. ARGV[2] .. ' ' .. said)
return {'written', reached, given_up}
