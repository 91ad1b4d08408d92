#!lua
-- Put a copy of an aggregate where the Orchestrator reads it, whole; never an older one over a newer. One that began
-- after the last event of what stands there belongs to an experiment that begins anew, and replaces it.
-- KEYS: aggregate
-- ARGV: events_total, first_event_at, (field, value)...
-- returns: 1 if it was put there, 2 if it replaced what was before it began anew, 0 if a newer one stands there
-- cost: O(N) for N fields
local there = redis.pcall('HMGET', KEYS[1], 'events_total', 'last_updated')
local outcome = 1
if not there.err and (tonumber(there[1] or '0') or 0) > tonumber(ARGV[1]) then
  if not there[2] or ARGV[2] <= there[2] then
    return 0
  end
  outcome = 2
end
redis.call('DEL', KEYS[1])
-- In slices: Lua passes a few thousand arguments at once at most.
for from = 3, #ARGV, 2000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, from, math.min(from + 1999, #ARGV)))
end
return outcome
