-- An alert's entry; needs go_on.
local function enter_outbox(outbox, account, data, at_ms)
  go_on(outbox, account)
  local id = redis.call('XADD', outbox, '*', 'data', data, 'at', at_ms)
  redis.pcall('HSET', account, 'last_id', id)
  redis.pcall('HINCRBY', account, 'owed', 1)
  return id
end
