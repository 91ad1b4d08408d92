#!lua
-- Write derived metrics beside the sums they were computed from, unless the sums have moved on since
-- (whoever moved them writes newer ones).
-- KEYS: aggregate of each experiment; in a partition touched before them
-- ARGV: for each experiment: events_total seen, number of fields to set, (field, value)..., number of
--       fields to remove, field...; in a partition before that '>', and the id of each experiment
-- returns: how many experiments were written
-- cost: O(N) for N fields
local written, arg, first = 0, 1, 1
if ARGV[1] == '>' then
  first = 2
  arg = #KEYS + 1
end
for n = first, #KEYS do
  local seen, sets = ARGV[arg], tonumber(ARGV[arg + 1])
  local first_set = arg + 2
  local removes = tonumber(ARGV[first_set + 2 * sets])
  local first_remove = first_set + 2 * sets + 1
  arg = first_remove + removes
  -- A key that has another type by now costs only its own experiment.
  if redis.pcall('HGET', KEYS[n], 'events_total') == seen then
    -- In slices: Lua passes a few thousand arguments at once at most.
    for from = first_set, first_set + 2 * sets - 1, 2000 do
      redis.call('HSET', KEYS[n], unpack(ARGV, from, math.min(from + 1999, first_set + 2 * sets - 1)))
    end
    for from = first_remove, arg - 1, 2000 do
      redis.call('HDEL', KEYS[n], unpack(ARGV, from, math.min(from + 1999, arg - 1)))
    end
    if first == 2 then
      redis.pcall('HINCRBY', KEYS[1], ARGV[n], 1)
    end
    written = written + 1
  end
end
return written
