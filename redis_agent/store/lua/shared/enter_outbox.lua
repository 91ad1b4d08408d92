-- An alert's entry; needs go_on. The trace is '' for none.
local function enter_outbox(outbox, account, data, at_ms, trace)
  go_on(outbox, account)
  local fields = {'data', data, 'at', at_ms}
  if trace ~= '' then
    fields[5], fields[6] = 'trace', trace
  end
  local id = redis.call('XADD', outbox, '*', unpack(fields))
  redis.pcall('HSET', account, 'last_id', id)
  redis.pcall('HINCRBY', account, 'owed', 1)
  return id
end
