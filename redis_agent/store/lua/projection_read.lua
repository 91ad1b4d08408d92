#!lua flags=allow-oom
-- Read what is to be copied of experiments that were touched, each at one moment.
-- KEYS: touched, then for each experiment: aggregate, raw_events
-- ARGV: max_raw, then for each experiment: id, the events_total that was copied last ('' for none)
-- returns: for each experiment {count, aggregate, events}: how often it was touched (0: it is not), field, value...,
--          and the newest raw events: those since then where the list still has them all, else all of it
-- cost: O(F + R) for F fields and R raw events
local max_raw, found = tonumber(ARGV[1]), {}
for e = 1, (#KEYS - 1) / 2 do
  local aggregate = redis.pcall('HGETALL', KEYS[2 * e])
  if aggregate.err then
    aggregate = {}
  end
  local total = tonumber(redis.pcall('HGET', KEYS[2 * e], 'events_total'))
  local known, events = tonumber(ARGV[1 + 2 * e]), {}
  if max_raw > 0 and not (known and total and known == total) then
    local length = redis.pcall('LLEN', KEYS[2 * e + 1])
    if type(length) == 'number' then
      local wanted = max_raw
      if known and total and total > known and total - known <= length then
        wanted = math.min(max_raw, total - known)
      end
      events = redis.call('LRANGE', KEYS[2 * e + 1], -wanted, -1)
    end
  end
  found[e] = {tonumber(redis.call('HGET', KEYS[1], ARGV[2 * e]) or '0'), aggregate, events}
end
return found
