-- Describes streams without carrying their entries over: per name {first sequence with totals, first with its batch, last ever stored}; 0: none.
--
-- KEYS[1 + 2i], KEYS[2 + 2i]  for the i-th stream (from 0): its stream of batches, its stream of totals
local function first(key)
  local entry = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  return entry and tonumber(string.match(entry[1], '^(%d+)-')) or 0
end

local described = {}
for i = 1, #KEYS, 2 do
  local last = 0
  if redis.call('EXISTS', KEYS[i + 1]) == 1 then
    local info = redis.call('XINFO', 'STREAM', KEYS[i + 1])
    for j = 1, #info, 2 do
      if info[j] == 'last-generated-id' then
        last = tonumber(string.match(info[j + 1], '^(%d+)-'))
      end
    end
  end
  described[#described + 1] = { first(KEYS[i + 1]), first(KEYS[i]), last }
end
return described
