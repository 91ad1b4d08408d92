#!lua
-- The gate: apply a batch of stream entries once, all or nothing.
--
-- Every entry must still be pending under this consumer; then the sums that Python folded are added, what could
-- not be read goes to the dead letters, error alerts enter the outbox, and the entries are acked. When an
-- entry is no longer ours (somebody else applied it, or took it over), nothing is changed. Lua does not roll back, so
-- everything is read and checked before the first write, also whether this user may do what follows.
--
-- KEYS: stream, dead_letters, outbox, experiments, floor, above, unapplied, account, outbox_account,
--       then for each experiment: aggregate, raw_events, fold_state,
--       then for each alert: cooldown, burst
--       then the windows of each experiment
--       then in a partition: touched
-- ARGV: group, consumer, n, id * n (ascending), 'JUSTID', plan, then the blobs the plan names in its order:
--       raw events of each experiment, data of each dead letter, data of each alert
-- plan (JSON): {
--   experiments: [{id, events, first, last, last_ms, counters: [[name, delta]...],
--                  gauges: [[name, latest, latest_id, sum, samples, min, max]...], raw,
--                  windows: [[ttl_seconds]   what is added to the experiment is added to the window, or
--                            [ttl_seconds, events, [[number of the counter, delta]...],
--                             [[number of the gauge, sum, samples, min, max]...]]...]}...],
--   dead: [[index of the id, reason, deliveries, at_ms, 1 if readable]...],
--   alerts: [[alert_id, cooldown_seconds, at_ms, burst_limit (0 for none)]...],
--   contiguous: whether the batch is every entry of the stream from its first to its last id,
--   touched: whether the experiments are noted as touched,
--   max_fields, max_raw, max_dead}     numbers as text where they may be fractions
-- returns: {'applied', aggregates, refused, alerts, unwritten}: for each experiment its aggregate as field, value...;
--            refused: [experiment number, name]... beyond max_fields; for each alert 1 if raised, else 0;
--            unwritten: [key, problem]... windows of the wrong form, which cost only themselves
--          {'stale', id...}: the ids that are still ours; nothing was changed
--          {'conflict', experiment number, key, problem}: a key of the wrong form; nothing was changed
--          {'blocked', key, problem}: dead letters or alerts cannot be written; nothing was changed
-- cost: O(N + F) for N entries and F touched fields, those of windows included
local STREAM, DEAD, OUTBOX, INDEX, FLOOR, ABOVE, UNAPPLIED, ACCOUNT, OUTBOX_ACCOUNT = unpack(KEYS, 1, 9)
local group, consumer, n = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- Exact decimals ---------------------------------------------------------------------------------------
-- Sums are texts with up to 12 decimals. Lua's numbers are doubles, exact only to 2^53, so a text is added
-- as three limbs of 12 digits: units of 1e12, of 1 and of 1e-12.
local LIMB = 1e12

local function limbs(text)
  local sign, whole, fraction = text:match('^(%-?)(%d+)%.?(%d*)$')
  if not whole then
    return nil
  end
  local sgn = sign == '-' and -1 or 1
  local high = #whole > 12 and tonumber(whole:sub(1, -13)) or 0
  return sgn * high, sgn * tonumber(whole:sub(-12)), sgn * tonumber((fraction .. '000000000000'):sub(1, 12))
end

-- Bring the two lower limbs into 0 <= limb < 1e12; the sign of the whole is then that of the highest.
local function carried(high, mid, low)
  local carry = math.floor(low / LIMB)
  mid, low = mid + carry, low - carry * LIMB
  carry = math.floor(mid / LIMB)
  return high + carry, mid - carry * LIMB, low
end

-- nil when `a` is no such text; `b` comes from Python and is one.
local function add(a, b)
  if #a < 15 and #b < 15 and a:find('^%-?%d+$') and not b:find('.', 1, true) then
    return string.format('%.0f', tonumber(a) + tonumber(b))
  end
  local a_high, a_mid, a_low = limbs(a)
  if not a_high then
    return nil
  end
  local b_high, b_mid, b_low = limbs(b)
  local high, mid, low = carried(a_high + b_high, a_mid + b_mid, a_low + b_low)
  local sign = ''
  if high < 0 then
    sign = '-'
    high, mid, low = carried(-high, -mid, -low)
  end
  local text = high > 0 and string.format('%.0f%012.0f', high, mid) or string.format('%.0f', mid)
  if low > 0 then
    text = text .. '.' .. string.format('%012.0f', low):gsub('0+$', '')
  end
  return sign .. text
end

local function later(a, b)
  local a_ms, a_seq = a:match('^(%d+)%-(%d+)$')
  local b_ms, b_seq = b:match('^(%d+)%-(%d+)$')
  if not a_ms then
    return false
  end
  if a_ms == b_ms then
    return tonumber(a_seq) > tonumber(b_seq)
  end
  return tonumber(a_ms) > tonumber(b_ms)
end

-- HMGET in slices, for the same reason as HSET; an error is given back.
local function hmget(key, names)
  local values = {}
  for from = 1, math.max(1, #names), 2000 do
    local to = math.min(from + 1999, #names)
    local found = redis.pcall('HMGET', key, unpack(names, from, to))
    if found.err then
      return found
    end
    for n = from, to do
      values[n] = found[n - from + 1]
    end
  end
  return values
end

-- HSET in slices: Lua passes a few thousand arguments at once at most.
local function hset(key, pairs_flat)
  for from = 1, #pairs_flat, 2000 do
    redis.call('HSET', key, unpack(pairs_flat, from, math.min(from + 1999, #pairs_flat)))
  end
end

-- 1. The gate -------------------------------------------------------------------------------------------
-- Usually the batch is just what this consumer has pending between its first and its last id: one range says so.
-- Otherwise (some are gone, or others of ours lie between) each is asked for. What another consumer holds by now is left
-- to it: a worker that was stopped and comes back takes nothing from whoever took over from it.
local function all_pending()
  local rows = redis.call('XPENDING', STREAM, group, ARGV[4], ARGV[3 + n], n, consumer)
  if #rows < n then
    return false
  end
  for i = 1, n do
    if rows[i][1] ~= ARGV[3 + i] then
      return false
    end
  end
  return true
end

if not all_pending() then
  local ours = {}
  for i = 4, 3 + n do
    if redis.call('XPENDING', STREAM, group, ARGV[i], ARGV[i], 1, consumer)[1] then
      ours[#ours + 1] = ARGV[i]
    end
  end
  if #ours < n then
    return {'stale', unpack(ours)}
  end
end

-- 2. Read and check; nothing is written yet -------------------------------------------------------------
local plan = cjson.decode(ARGV[5 + n])
-- Keys that all experiments share: of the wrong type, these two stop everything.
for key, size in pairs({[INDEX] = 'ZCARD', [ABOVE] = 'HLEN'}) do
  local problem = redis.pcall(size, key)
  if type(problem) == 'table' then
    return redis.error_reply(problem.err .. ' (key ' .. key .. ')')
  end
end
-- These stop only what must be written there.
local function blocked(key, size)
  local problem = redis.pcall(size, key)
  if type(problem) == 'table' then
    if not problem.err:find('WRONGTYPE', 1, true) then
      return redis.error_reply(problem.err)
    end
    return {'blocked', key, problem.err}
  end
end
local hindrance = #plan.dead > 0 and (blocked(DEAD, 'XLEN') or blocked(UNAPPLIED, 'SCARD'))
  or #plan.alerts > 0 and blocked(OUTBOX, 'XLEN')
if hindrance then
  return hindrance
end
-- A key of an experiment: of the wrong type it costs its own events; whatever else is the matter is not its fault.
local function conflict(e, key, problem)
  if not problem:find('WRONGTYPE', 1, true) then
    return redis.error_reply(problem)
  end
  return {'conflict', e, key, problem}
end
local writes, refused = {}, {}
for e, change in ipairs(plan.experiments) do
  local aggregate, raw_events, fold_state = KEYS[7 + 3 * e], KEYS[8 + 3 * e], KEYS[9 + 3 * e]
  local names = {'events_total', 'first_event_at', 'last_updated'}
  for _, counter in ipairs(change.counters) do
    names[#names + 1] = counter[1] .. '_count'
  end
  local state_names = {}
  for g, gauge in ipairs(change.gauges) do
    for _, suffix in ipairs({'_samples', '_sum', '_min', '_max'}) do
      names[#names + 1] = gauge[1] .. suffix
    end
    state_names[g] = 'latest:' .. gauge[1]
  end
  local values = hmget(aggregate, names)
  if values.err then
    return conflict(e, aggregate, values.err)
  end
  if plan.max_raw > 0 then
    local length = redis.pcall('LLEN', raw_events)
    if type(length) == 'table' then
      return conflict(e, raw_events, length.err)
    end
  end
  local known = {}
  if #change.gauges > 0 then
    known = hmget(fold_state, state_names)
    if known.err then
      return conflict(e, fold_state, known.err)
    end
  end
  local fields -- in use, counted when the first new name comes

  local set, state = {}, {}
  local function put(field, value)
    set[#set + 1], set[#set + 2] = field, value
  end
  local function total(at, delta)
    if not values[at] then
      return delta
    end
    return add(values[at], delta)
  end
  local function room(name, at, needed)
    if values[at] then
      return true
    end
    fields = fields or math.max(3, redis.call('HLEN', aggregate))
    if fields + needed > plan.max_fields then
      refused[#refused + 1] = {e, name}
      return false
    end
    fields = fields + needed
    return true
  end

  local events = total(1, change.events)
  if not events or events:find('.', 1, true) then
    return {'conflict', e, aggregate, 'events_total is not a whole number'}
  end
  put('events_total', events)
  if not values[2] or change.first < values[2] then
    put('first_event_at', change.first)
  end
  if not values[3] or change.last > values[3] then
    put('last_updated', change.last)
  end
  local at = 4
  local taken, gauges_taken = {}, {} -- which names have their place
  for c, counter in ipairs(change.counters) do
    if room(counter[1], at, 1) then
      taken[c] = true
      local sum = total(at, counter[2])
      if not sum then
        return {'conflict', e, aggregate, names[at] .. ' is not a number'}
      end
      put(names[at], sum)
    end
    at = at + 1
  end
  for g, gauge in ipairs(change.gauges) do
    local name, latest, latest_id, sum, samples, low, high = unpack(gauge)
    if room(name, at, 5) then
      gauges_taken[g] = true
      local new_samples, new_sum = total(at, samples), total(at + 1, sum)
      if not new_samples or not new_sum then
        return {'conflict', e, aggregate, name .. '_samples or _sum is not a number'}
      end
      put(name .. '_samples', new_samples)
      put(name .. '_sum', new_sum)
      local old_low, old_high = tonumber(values[at + 2] or nil), tonumber(values[at + 3] or nil)
      if not old_low or tonumber(low) < old_low then
        put(name .. '_min', low)
      end
      if not old_high or tonumber(high) > old_high then
        put(name .. '_max', high)
      end
      -- The latest value is the one latest in the stream, in whatever order workers apply their batches.
      if not known[g] or later(latest_id, known[g]) then
        put(name .. '_latest', latest)
        state[#state + 1], state[#state + 2] = state_names[g], latest_id
      end
    end
    at = at + 4
  end
  writes[e] = {aggregate = aggregate, raw_events = raw_events, fold_state = fold_state, set = set, state = state,
    taken = taken, gauges_taken = gauges_taken}
end

-- A right may have been taken away since the last batch, and one that is missing half-way would leave sums that are added
-- again. Keys of one kind have one prefix: the first stands for all.
local function must_be_allowed(command, key, ...)
  if not redis.acl_check_cmd(command, key, ...) then
    error({err = 'NOPERM this user may not run ' .. command .. ' on ' .. key .. '; nothing was applied'})
  end
end
if writes[1] then
  must_be_allowed('HSET', writes[1].aggregate, 'f', '1')
  must_be_allowed('HGETALL', writes[1].aggregate)
  must_be_allowed('HSET', writes[1].fold_state, 'f', '1')
  if plan.max_raw > 0 then
    must_be_allowed('RPUSH', writes[1].raw_events, '1')
    must_be_allowed('LTRIM', writes[1].raw_events, '-1', '-1')
  end
  must_be_allowed('ZADD', INDEX, 'GT', '1', 'e')
end
local next_window = 10 + 3 * #plan.experiments + 2 * #plan.alerts
if KEYS[next_window] then
  must_be_allowed('EXPIRE', KEYS[next_window], '1')
  must_be_allowed('HMGET', KEYS[next_window], 'f')
  must_be_allowed('HSET', KEYS[next_window], 'f', '1')
end
if #plan.dead > 0 then
  must_be_allowed('XADD', DEAD, '*', 'f', '1')
  must_be_allowed('SADD', UNAPPLIED, 'id')
end
if #plan.alerts > 0 then
  local cooldown, burst = KEYS[10 + 3 * #plan.experiments], KEYS[11 + 3 * #plan.experiments]
  must_be_allowed('EXISTS', cooldown)
  must_be_allowed('SET', cooldown, 'id', 'NX', 'EX', '1')
  must_be_allowed('EXPIRE', burst, '1')
  must_be_allowed('XADD', OUTBOX, '*', 'f', '1')
end
must_be_allowed('XACK', STREAM, group, ARGV[4])

-- 3. Write: from here on nothing can fail ---------------------------------------------------------------
local blob = 6 + n
-- An event whose time of receipt lies in the future (a machine's clock ran ahead) must not keep its experiment the most
-- recently active one until that time comes: the index goes no further than now.
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local aggregates, touched, unwritten = {}, {}, {}

-- What is added to a window: names and what is added to each, sums first, and from `sums` on the bounds of gauges, the
-- lower before the upper. A name that the aggregate had no room for is not among them.
local function addition(change, write, events, counters, gauges)
  local whole = counters == change.counters
  local names, values, n = {'events'}, {events}, 1
  for c, counter in ipairs(counters) do
    local number = whole and c or counter[1]
    if write.taken[number] then
      n = n + 1
      names[n], values[n] = change.counters[number][1] .. '_count', counter[2]
    end
  end
  local bounds, from = {}, whole and 4 or 2
  for g, gauge in ipairs(gauges) do
    local number = whole and g or gauge[1]
    if write.gauges_taken[number] then
      local name = change.gauges[number][1]
      names[n + 1], values[n + 1] = name .. '_sum', gauge[from]
      names[n + 2], values[n + 2] = name .. '_samples', gauge[from + 1]
      n = n + 2
      bounds[#bounds + 1] = {name, gauge[from + 2], gauge[from + 3]}
    end
  end
  local sums = n
  for _, bound in ipairs(bounds) do
    names[n + 1], values[n + 1] = bound[1] .. '_min', bound[2]
    names[n + 2], values[n + 2] = bound[1] .. '_max', bound[3]
    n = n + 2
  end
  return {names = names, values = values, sums = sums}
end

-- Nothing here may end the script half-way: what is wrong with a window is said, and the window goes without.
local function add_window(key, seconds, added)
  local names, values, sums = added.names, added.values, added.sums
  local known = hmget(key, names)
  if known.err then
    return known.err
  end
  local set, n, problem = {}, 0, nil
  for i, name in ipairs(names) do
    local value, before = values[i], known[i]
    if before and i <= sums then
      value = add(before, value)
      if not value then
        problem = name .. ' is not a number'
      end
    elseif before then
      local old, new = tonumber(before), tonumber(value)
      local is_low = (i - sums) % 2 == 1
      value = (not old or is_low and new < old or not is_low and new > old) and value
    end
    if value then
      set[n + 1], set[n + 2] = name, value
      n = n + 2
    end
  end
  hset(key, set)
  if not known[1] then
    redis.call('EXPIRE', key, seconds)
  end
  return problem
end

for e, change in ipairs(plan.experiments) do
  local write = writes[e]
  hset(write.aggregate, write.set)
  hset(write.fold_state, write.state)
  if change.raw > 0 then
    local length = redis.call('RPUSH', write.raw_events, unpack(ARGV, blob, blob + change.raw - 1))
    if length > plan.max_raw then
      redis.call('LTRIM', write.raw_events, -plan.max_raw, -1)
    end
    blob = blob + change.raw
  end
  local whole
  for _, window in ipairs(change.windows) do
    local key, added = KEYS[next_window], nil
    if window[2] then
      added = addition(change, write, window[2], window[3], window[4])
    else -- most minutes and hours get all of it
      whole = whole or addition(change, write, change.events, change.counters, change.gauges)
      added = whole
    end
    local problem = add_window(key, window[1], added)
    if problem then
      unwritten[#unwritten + 1] = {key, problem}
    end
    next_window = next_window + 1
  end
  touched[2 * e - 1], touched[2 * e] = math.min(change.last_ms, now_ms), change.id
  aggregates[e] = redis.call('HGETALL', write.aggregate)
end
if #touched > 0 then
  redis.call('ZADD', INDEX, 'GT', unpack(touched))
end
if plan.touched then
  for _, change in ipairs(plan.experiments) do
    redis.pcall('HINCRBY', KEYS[#KEYS], change.id, 1)
  end
end
for _, entry in ipairs(refused) do
  local fold_state, field = writes[entry[1]].fold_state, 'refused:' .. entry[2]
  -- Names refused are themselves bounded: a hundred, beside the latest ids, are kept for people to see.
  local kept = redis.pcall('HEXISTS', fold_state, field) == 1
  if kept or (tonumber(redis.pcall('HLEN', fold_state)) or math.huge) < plan.max_fields / 5 + 100 then
    redis.pcall('HINCRBY', fold_state, field, 1)
  end
end
for _, letter in ipairs(plan.dead) do
  local id = ARGV[3 + letter[1]]
  redis.call('XADD', DEAD, 'MAXLEN', '~', plan.max_dead, '*', 'data', ARGV[blob], 'reason', letter[2],
    'source_id', id, 'deliveries', letter[3], 'at', letter[4])
  if letter[5] == 1 then
    redis.call('SADD', UNAPPLIED, id)
  end
  blob = blob + 1
end
-- include go_on
-- include enter_outbox
local raised = {}
local first_cooldown = 10 + 3 * #plan.experiments
for a, alert in ipairs(plan.alerts) do
  raised[a] = 0
  local cooldown, burst = KEYS[first_cooldown + 2 * (a - 1)], KEYS[first_cooldown + 2 * a - 1]
  -- However many kinds of error an experiment reports at once, a few say that it is broken.
  local room = true
  if alert[4] > 0 and redis.call('EXISTS', cooldown) == 0 then
    local so_far = redis.pcall('INCR', burst)
    if so_far == 1 then
      redis.call('EXPIRE', burst, alert[2])
    end
    room = type(so_far) == 'table' or so_far <= alert[4]
  end
  if room and redis.call('SET', cooldown, alert[1], 'NX', 'EX', alert[2]) then
    enter_outbox(OUTBOX, OUTBOX_ACCOUNT, ARGV[blob], alert[3])
    raised[a] = 1
  end
  blob = blob + 1
end
redis.call('XACK', STREAM, group, unpack(ARGV, 4, 3 + n))

-- 4. Where a lost group would be recreated --------------------------------------------------------------
-- The floor: every entry up to it has been applied. What this batch applied above it, because an older batch of another
-- consumer is still pending, is remembered until the floor has passed it.
local left = redis.call('XPENDING', STREAM, group)
local floor, all_acked
if left[1] > 0 then
  local oldest = left[2]
  local ms, seq = oldest:match('(%d+)-(%d+)')
  if tonumber(seq) > 0 then
    floor = ms .. '-' .. string.format('%.0f', tonumber(seq) - 1)
  else
    floor = string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
  end
  local first, last = ARGV[4], ARGV[3 + n]
  if redis.call('HLEN', ABOVE) >= (plan.contiguous and 20000 or 2000) then
    -- Somebody has held an entry for very long: what is remembered is bounded, too, lists of single ids the more.
  elseif plan.contiguous and later(first, oldest) then
    redis.call('HSET', ABOVE, first, first .. '..' .. last)
  elseif later(last, oldest) then
    redis.call('HSET', ABOVE, first, table.concat(ARGV, ' ', 4, 3 + n))
  end
else
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', STREAM)) do
    if info[2] == group then
      for field = 3, #info, 2 do
        if info[field] == 'last-delivered-id' then
          floor = info[field + 1]
        elseif info[field] == 'lag' then
          all_acked = info[field + 1] == 0
        end
      end
    end
  end
end
if floor ~= redis.pcall('GET', FLOOR) then
  redis.call('SET', FLOOR, floor)
  if redis.call('EXISTS', ABOVE) == 1 then
    local records = redis.call('HGETALL', ABOVE)
    for r = 1, #records, 2 do
      if not later(records[r + 1]:match('(%d+%-%d+)$'), floor) then
        redis.call('HDEL', ABOVE, records[r])
      end
    end
  end
end
-- What is owed: entries of the stream that are not acked. Others may write to the stream, too, or delete from it: counted
-- anew whenever all is acked.
local owed = all_acked and -1 or redis.pcall('HINCRBY', ACCOUNT, 'owed', -n)
if type(owed) == 'number' and owed < 0 then
  redis.pcall('HSET', ACCOUNT, 'owed', 0)
end
return {'applied', aggregates, refused, raised, unwritten}
