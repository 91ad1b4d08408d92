#!lua flags=allow-oom
-- The bridges of a cluster agree on the node they subscribe to: who finds the present one lost names another, and of
-- those who do so at once the first is heeded.
-- KEYS: node
-- ARGV: node_before, node
-- returns: the node that is agreed on
-- cost: O(1)
local agreed = redis.call('GET', KEYS[1])
if agreed and agreed ~= ARGV[1] then
  return agreed
end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
