#!lua flags=allow-oom
-- These experiments are copied as they were read; one that was touched again since is still to be copied.
-- KEYS: touched
-- ARGV: for each experiment: id, count as it was read
-- returns: how many are copied for now
-- cost: O(N) for N experiments
local done = 0
for n = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[n]) == ARGV[n + 1] then
    redis.call('HDEL', KEYS[1], ARGV[n])
    done = done + 1
  end
end
return done
