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
-- ARGV: group, consumer, n, ids (n of them, ascending, in one text with spaces between), plan, then the blobs the plan
--       names in its order: raw events of each experiment, data of each dead letter, data of each alert
-- plan (JSON): {
--   experiments: [{id, events, first, last (if not the first), last_ms, raw, asked (if so: 1),
--                  counters: [field, delta, field, delta...] (if any),
--                  gauges: [[name, latest, latest_id, sum, samples, min, max]...] (if any),
--                  windows (if not as usual): [[ttl_seconds]   what is added to the experiment is added to the window, or
--                            [ttl_seconds, events, [number of the counter, delta, number, delta...],
--                             [[number of the gauge, sum, samples, min, max]...]]...]}...],
--   windows: as usual, of an experiment that does not say,
--   dead: [[index of the id, reason, deliveries, at_ms, 1 if readable]...],
--   alerts: [[alert_id, cooldown_seconds, at_ms, burst_limit (0 for none), trace ('' for none)]...],
--   contiguous: whether the batch is every entry of the stream from its first to its last id,
--   touched: whether the experiments are noted as touched,
--   max_fields, max_raw, max_dead}     numbers as text where they may be fractions
-- returns: {'applied', aggregates, refused, alerts, unwritten, us}: for each experiment that is asked for, in order, its
--            aggregate as field, value...; refused: [experiment number, name]... beyond max_fields; for each alert 1 if raised, else 0;
--            unwritten: [key, problem]... windows of the wrong form, which cost only themselves; CPU time of all this, -1 where
--            the server does not say (Redis before 7.4, Valkey before 8.0)
--          {'stale', id...}: the ids that are still ours; nothing was changed
--          {'conflict', experiment number, key, problem}: a key of the wrong form; nothing was changed
--          {'blocked', key, problem}: dead letters or alerts cannot be written; nothing was changed
-- cost: O(N + F) for N entries and F touched fields, those of windows included
local clock = (rawget(_G, 'os') or {}).clock
local began = clock and clock()
local STREAM, DEAD, OUTBOX, INDEX, FLOOR, ABOVE, UNAPPLIED, ACCOUNT, OUTBOX_ACCOUNT = unpack(KEYS, 1, 9)
local group, consumer, n = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- Exact decimals ---------------------------------------------------------------------------------------
-- Sums are texts with up to 12 decimals. Lua's numbers are doubles, exact only to 2^53, so a text is added
-- as three limbs of 12 digits: units of 1e12, of 1 and of 1e-12.
local LIMB = 1e12
local POWERS = {[0] = 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12}
local find, floor, format = string.find, math.floor, string.format

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
  local carry = floor(low / LIMB)
  mid, low = mid + carry, low - carry * LIMB
  carry = floor(mid / LIMB)
  return high + carry, mid - carry * LIMB, low
end

local function add_limbs(a, b)
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
  local text = high > 0 and format('%.0f%012.0f', high, mid) or format('%.0f', mid)
  if low > 0 then
    text = text .. '.' .. format('%012.0f', low):gsub('0+$', '')
  end
  return sign .. text
end

-- Numbers of up to 15 digits: in units of their last place they are whole, and a double holds them. Reading a text and
-- scaling it err by less than a quarter of a unit below 1e15, so rounding finds the unit; a double that is nearest to a
-- decimal of 15 digits prints as that decimal. nil when that is not so: it would be too large, or print with an exponent.
local function add_short(a, b)
  local a_point, b_point = find(a, '.', 1, true), find(b, '.', 1, true)
  local a_places, b_places = a_point and #a - a_point or 0, b_point and #b - b_point or 0
  local power = POWERS[a_places > b_places and a_places or b_places]
  if not power then
    return nil
  end
  local x, y = tonumber(a) * power, tonumber(b) * power
  if x >= 1e15 or x <= -1e15 or y >= 1e15 or y <= -1e15 then
    return nil
  end
  local units = floor(x + 0.5) + floor(y + 0.5)
  if units == 0 or power == 1 then
    return units
  end
  local sum = units / power
  local size = sum < 0 and -sum or sum
  if size < 1e-4 or size * power >= 1e15 then
    return nil
  end
  return format('%.15g', sum)
end

-- A text, or a whole number below 2^53, which the server writes as the text that it is; nil when `a` is no such text.
-- `b` comes from Python and is one.
local function add(a, b)
  if #a < 17 and #b < 17 and find(a, '^%-?%d+%.?%d*$') then
    return add_short(a, b) or add_limbs(a, b)
  end
  return add_limbs(a, b)
end

-- The same where `count` is whole, and less than 1e15.
local function plus(a, count)
  if #a < 15 and find(a, '^%-?%d+$') then
    return a + count
  end
  return add_limbs(a, count)
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

-- HMGET of names[first] to names[last], in slices: Lua passes a few thousand arguments at once at most. An error is given back.
local function hmget(key, names, first, last)
  if last - first < 2000 then
    return redis.pcall('HMGET', key, unpack(names, first, last))
  end
  local values = {}
  for from = first, last, 2000 do
    local to = math.min(from + 1999, last)
    local found = redis.pcall('HMGET', key, unpack(names, from, to))
    if found.err then
      return found
    end
    for n = from, to do
      values[n - first + 1] = found[n - from + 1]
    end
  end
  return values
end

-- HSET of the fields and values from flat[first] to flat[last], in slices, too.
local function hset(key, flat, first, last)
  for from = first, last, 2000 do
    redis.call('HSET', key, unpack(flat, from, math.min(from + 1999, last)))
  end
end

-- 1. The gate -------------------------------------------------------------------------------------------
-- Usually the batch is just what this consumer has pending between its first and its last id: one range says so.
-- Otherwise (some are gone, or others of ours lie between) each is asked for. What another consumer holds by now is left
-- to it: a worker that was stopped and comes back takes nothing from whoever took over from it.
local ids = {}
local first_id, last_id = ARGV[4]:match('^%S+'), ARGV[4]:sub(-41):match('%S+$') -- no id is longer
for i, row in ipairs(redis.call('XPENDING', STREAM, group, first_id, last_id, n, consumer)) do
  ids[i] = row[1]
end
if table.concat(ids, ' ') ~= ARGV[4] then
  ids = {}
  for id in ARGV[4]:gmatch('%S+') do
    if redis.call('XPENDING', STREAM, group, id, id, 1, consumer)[1] then
      ids[#ids + 1] = id
    end
  end
  if #ids < n then
    table.insert(ids, 1, 'stale')
    return ids
  end
end

-- 2. Read and check; nothing is written yet -------------------------------------------------------------
local plan = cjson.decode(ARGV[5])
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
local refused, NONE = {}, {}
-- Experiments share four rows, one after the other in each: a few tables of its own for each of hundreds would cost more than
-- the adding. names: of fields; added: what is added under each; sets and states: fields and values to be written.
local names, added, sets, states = {}, {}, {}, {}
-- Of each experiment: its keys and its parts of the rows. `base` is before its first name, `sums` counts events and counters,
-- `count` all its names; missing: the places (from 1) of names that there is no room for.
local writes = {}
local base, set_to, state_to = 0, 0, 0
local fields -- of the experiment in hand: in use, counted when the first new name comes
local function room(write, place, needed, taken)
  fields = fields or math.max(3, redis.call('HLEN', write.aggregate))
  if fields + needed > plan.max_fields then
    write.missing = write.missing or {}
    for n = place, place + taken - 1 do
      write.missing[n] = true
    end
    return false
  end
  fields = fields + needed
  return true
end
for e, change in ipairs(plan.experiments) do
  local aggregate, raw_events, fold_state = KEYS[7 + 3 * e], KEYS[8 + 3 * e], KEYS[9 + 3 * e]
  local counters, gauges = change.counters or NONE, change.gauges or NONE
  -- Events, counters, and sum, samples, min and max of each gauge. Windows have the same.
  local at = base + 1
  names[at], added[at] = 'events_total', change.events
  for c = 1, #counters, 2 do
    at = at + 1
    names[at], added[at] = counters[c], counters[c + 1]
  end
  local sums, state_from = at - base, state_to + 1
  for _, gauge in ipairs(gauges) do
    local name = gauge[1]
    names[at + 1], added[at + 1] = name .. '_sum', gauge[4]
    names[at + 2], added[at + 2] = name .. '_samples', gauge[5]
    names[at + 3], added[at + 3] = name .. '_min', gauge[6]
    names[at + 4], added[at + 4] = name .. '_max', gauge[7]
    at = at + 4
  end
  local count = at - base
  -- The next experiment's names stand in the place of these two.
  names[at + 1], names[at + 2] = 'first_event_at', 'last_updated'
  local values = hmget(aggregate, names, base + 1, at + 2)
  if values.err then
    return conflict(e, aggregate, values.err)
  end
  if plan.max_raw > 0 then
    local length = redis.pcall('LLEN', raw_events)
    if type(length) == 'table' then
      return conflict(e, raw_events, length.err)
    end
  end
  local known
  if gauges[1] then
    local latest = {}
    for g, gauge in ipairs(gauges) do
      latest[g] = 'latest:' .. gauge[1]
    end
    known = hmget(fold_state, latest, 1, #latest)
    if known.err then
      return conflict(e, fold_state, known.err)
    end
  end
  fields = nil
  local write = {aggregate = aggregate, raw_events = raw_events, fold_state = fold_state, base = base, count = count,
    sums = sums, missing = nil, set_from = set_to + 1, set_to = 0, state_from = state_from, state_to = 0}

  local events = values[1] and plus(values[1], change.events) or not values[1] and change.events
  if not events or type(events) == 'string' and find(events, '.', 1, true) then
    return {'conflict', e, aggregate, 'events_total is not a whole number'}
  end
  sets[set_to + 1], sets[set_to + 2] = 'events_total', events
  set_to = set_to + 2
  local first, last = values[count + 1], values[count + 2]
  if not first or change.first < first then
    sets[set_to + 1], sets[set_to + 2] = 'first_event_at', change.first
    set_to = set_to + 2
  end
  local newest = change.last or change.first
  if not last or newest > last then
    sets[set_to + 1], sets[set_to + 2] = 'last_updated', newest
    set_to = set_to + 2
  end
  for place = 2, sums do
    local name, sum, before = names[base + place], added[base + place], values[place]
    if before then
      sum = plus(before, sum)
      if not sum then
        return {'conflict', e, aggregate, name .. ' is not a number'}
      end
    elseif not room(write, place, 1, 1) then
      refused[#refused + 1], sum = {e, name:sub(1, -7)}, nil
    end
    if sum then
      sets[set_to + 1], sets[set_to + 2] = name, sum
      set_to = set_to + 2
    end
  end
  for g, gauge in ipairs(gauges) do
    local place = sums + 4 * g - 3
    local sum, samples = gauge[4], gauge[5]
    local old_sum, old_samples, old_low, old_high =
      values[place], values[place + 1], values[place + 2], values[place + 3]
    if old_samples or room(write, place, 5, 4) then
      sum = old_sum and add(old_sum, sum) or not old_sum and sum
      samples = old_samples and plus(old_samples, samples) or not old_samples and samples
      if not sum or not samples then
        return {'conflict', e, aggregate, gauge[1] .. '_samples or _sum is not a number'}
      end
      local name = base + place
      sets[set_to + 1], sets[set_to + 2], sets[set_to + 3], sets[set_to + 4] =
        names[name], sum, names[name + 1], samples
      set_to = set_to + 4
      old_low, old_high = old_low and tonumber(old_low), old_high and tonumber(old_high)
      if not old_low or tonumber(gauge[6]) < old_low then
        sets[set_to + 1], sets[set_to + 2] = names[name + 2], gauge[6]
        set_to = set_to + 2
      end
      if not old_high or tonumber(gauge[7]) > old_high then
        sets[set_to + 1], sets[set_to + 2] = names[name + 3], gauge[7]
        set_to = set_to + 2
      end
      -- The latest value is the one latest in the stream, in whatever order workers apply their batches.
      if not known[g] or later(gauge[3], known[g]) then
        sets[set_to + 1], sets[set_to + 2] = gauge[1] .. '_latest', gauge[2]
        set_to = set_to + 2
        states[state_to + 1], states[state_to + 2] = 'latest:' .. gauge[1], gauge[3]
        state_to = state_to + 2
      end
    else
      refused[#refused + 1] = {e, gauge[1]}
    end
  end
  names[base + 1] = 'events' -- as windows call it
  write.set_to, write.state_to, base = set_to, state_to, at
  writes[e] = write
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
must_be_allowed('XACK', STREAM, group, ids[1])

-- 3. Write: from here on nothing can fail ---------------------------------------------------------------
local blob = 6
-- An event whose time of receipt lies in the future (a machine's clock ran ahead) must not keep its experiment the most
-- recently active one until that time comes: the index goes no further than now.
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local aggregates, touched, unwritten = {}, {}, {}

-- What is in hand of one window; the rows are used again for the next.
local window_names, window_values, window_places, window_set = {}, {}, {}, {}

-- What a window gets of an experiment's names, where that is not all: how many, their names, what is added, and their places.
local function share(write, window)
  local n = 0
  local function give(place, value)
    if not (write.missing and write.missing[place]) then
      n = n + 1
      window_names[n], window_values[n], window_places[n] = names[write.base + place], value, place
    end
  end
  if not window[2] then
    for place = 1, write.count do
      give(place, added[write.base + place])
    end
    return n
  end
  give(1, window[2])
  for c = 1, #window[3], 2 do
    give(1 + window[3][c], window[3][c + 1])
  end
  for _, gauge in ipairs(window[4]) do
    for part = 2, 5 do
      give(write.sums + 4 * gauge[1] + part - 5, gauge[part])
    end
  end
  return n
end

-- Nothing here may end the script half-way: what is wrong with a window is said, and the window goes without.
local function add_window(key, window, write)
  local its_names, values, places, before_first, count = names, added, nil, write.base, write.count
  if window[2] or write.missing then
    its_names, values, places, before_first = window_names, window_values, window_places, 0
    count = share(write, window)
  end
  local known = hmget(key, its_names, before_first + 1, before_first + count)
  if known.err then
    return known.err
  end
  local n, sums, problem = 0, write.sums, nil
  for i = 1, count do
    local value, before = values[before_first + i], known[i]
    if before then
      local place = places and places[i] or i
      local part = place > sums and (place - sums) % 4 or 2
      if part == 2 then
        value = plus(before, value)
      elseif part == 1 then
        value = add(before, value)
      else
        local old, new = tonumber(before), tonumber(value)
        if old and (part == 3 and new >= old or part == 0 and new <= old) then
          value = false
        end
      end
      if value == nil then
        problem = its_names[before_first + i] .. ' is not a number'
      end
    end
    if value then
      window_set[n + 1], window_set[n + 2] = its_names[before_first + i], value
      n = n + 2
    end
  end
  hset(key, window_set, 1, n)
  if not known[1] then
    redis.call('EXPIRE', key, window[1])
  end
  return problem
end

for e, change in ipairs(plan.experiments) do
  local write = writes[e]
  hset(write.aggregate, sets, write.set_from, write.set_to)
  hset(write.fold_state, states, write.state_from, write.state_to)
  if change.raw > 0 then
    local length = redis.call('RPUSH', write.raw_events, unpack(ARGV, blob, blob + change.raw - 1))
    if length > plan.max_raw then
      redis.call('LTRIM', write.raw_events, -plan.max_raw, -1)
    end
    blob = blob + change.raw
  end
  for _, window in ipairs(change.windows or plan.windows) do
    local problem = add_window(KEYS[next_window], window, write)
    if problem then
      unwritten[#unwritten + 1] = {KEYS[next_window], problem}
    end
    next_window = next_window + 1
  end
  touched[2 * e - 1], touched[2 * e] = math.min(change.last_ms, now_ms), change.id
  if change.asked == 1 then
    aggregates[#aggregates + 1] = redis.call('HGETALL', write.aggregate)
  end
end
for from = 1, #touched, 2000 do
  redis.call('ZADD', INDEX, 'GT', unpack(touched, from, math.min(from + 1999, #touched)))
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
  local id = ids[letter[1]]
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
    enter_outbox(OUTBOX, OUTBOX_ACCOUNT, ARGV[blob], alert[3], alert[5])
    raised[a] = 1
  end
  blob = blob + 1
end
for from = 1, n, 2000 do
  redis.call('XACK', STREAM, group, unpack(ids, from, math.min(from + 1999, n)))
end

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
  if redis.call('HLEN', ABOVE) >= (plan.contiguous and 20000 or 2000) then
    -- Somebody has held an entry for very long: what is remembered is bounded, too, lists of single ids the more.
  elseif plan.contiguous and later(first_id, oldest) then
    redis.call('HSET', ABOVE, first_id, first_id .. '..' .. last_id)
  elseif later(last_id, oldest) then
    redis.call('HSET', ABOVE, first_id, ARGV[4])
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
return {'applied', aggregates, refused, raised, unwritten, clock and math.floor((clock() - began) * 1e6) or -1}
