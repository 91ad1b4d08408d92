#!lua
-- One moment of some experiments: their aggregates, and which entries of the stream they are made of. Read-only.
--
-- An aggregate is made of the entries up to the group's last-delivered id that are neither pending nor marked as
-- unapplied (and can be read as an event): the gate changes all of these in one step, and so does this look at them.
-- KEYS: stream, floor, unapplied, then for each experiment: aggregate, fold_state
-- ARGV: group, '1' to return the members of unapplied too
-- returns: {last delivered id, pending ids, unapplied ids, {aggregate, fold_state} of each experiment};
--          a hash as field, value...; a key of another type as its error's text
-- cost: O(P + U + F) for P pending and U unapplied entries and F fields
local STREAM, FLOOR, UNAPPLIED = KEYS[1], KEYS[2], KEYS[3]
local group = ARGV[1]

local function hash(key)
  local fields = redis.pcall('HGETALL', key)
  return fields.err or fields
end

local delivered
local groups = redis.pcall('XINFO', 'GROUPS', STREAM)
for _, info in ipairs(groups.err and {} or groups) do
  if info[2] == group then
    for n = 3, #info, 2 do
      if info[n] == 'last-delivered-id' then
        delivered = info[n + 1]
      end
    end
  end
end
local pending = {}
if delivered then
  local count = redis.call('XPENDING', STREAM, group)[1]
  if count > 0 then
    for n, entry in ipairs(redis.call('XPENDING', STREAM, group, '-', '+', count)) do
      pending[n] = entry[1]
    end
  end
end
local unapplied = ARGV[2] == '1' and redis.call('SMEMBERS', UNAPPLIED) or {}
local experiments = {}
for n = 4, #KEYS, 2 do
  experiments[#experiments + 1] = {hash(KEYS[n]), hash(KEYS[n + 1])}
end
-- Without a group nothing is being read; what had been applied reaches at least to the floor.
return {delivered or redis.call('GET', FLOOR) or '0-0', pending, unapplied, experiments}
