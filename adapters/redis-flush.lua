-- Stores a flush as a whole, or nothing of it: MULTI/EXEC would not do, since it carries on behind a command that fails.
--
-- KEYS[1]  hash: every stream of the collector, "<incarnation>/<partition>" -> "open" | "closed"
-- KEYS[2]  hash: the exporters' positions
-- KEYS[3 + 2i], KEYS[4 + 2i]  for the i-th end (from 0): its stream of batches, its stream of totals
-- ARGV[1]  number of ends E
-- ARGV[2 .. 1 + 2E]  for each end: its name in KEYS[1], the last sequence that the process left there (0: no stream)
-- then     number of batches B, and for each: the end's index (from 0), sequence, value, totals, "1" for a goodbye
-- then     number of positions, and for each: exporter, position; an empty one takes the exporter's away
--
-- Returns {"stored"}, {"repeated"} when the streams end with exactly these batches already, or {"mismatch", end's index, last sequence found}.
local ends = tonumber(ARGV[1])
local at = 2
local name, last, found, added = {}, {}, {}, {}
for i = 0, ends - 1 do
  name[i] = ARGV[at]
  last[i] = tonumber(ARGV[at + 1])
  added[i] = 0
  found[i] = 0
  local key = KEYS[4 + 2 * i]
  if redis.call('EXISTS', key) == 1 then
    local info = redis.call('XINFO', 'STREAM', key)
    for j = 1, #info, 2 do
      if info[j] == 'last-generated-id' then
        found[i] = tonumber(string.match(info[j + 1], '^(%d+)-'))
      end
    end
  end
  at = at + 2
end

local batches = tonumber(ARGV[at])
local firstBatch = at + 1
local wrong = nil
for i = 0, ends - 1 do
  if wrong == nil and found[i] ~= last[i] then
    wrong = i
  end
end

if wrong ~= nil then
  local repeated = batches > 0
  for b = 0, batches - 1 do
    local a = firstBatch + 5 * b
    local i = tonumber(ARGV[a])
    added[i] = added[i] + 1
    if repeated then
      local id = ARGV[a + 1] .. '-0'
      local entry = redis.call('XRANGE', KEYS[3 + 2 * i], id, id)[1]
      repeated = entry ~= nil and entry[2][2] == ARGV[a + 2]
    end
  end
  for i = 0, ends - 1 do
    repeated = repeated and found[i] == last[i] + added[i]
  end
  if repeated then
    return { 'repeated' }
  end
  return { 'mismatch', wrong, found[wrong] }
end

for b = 0, batches - 1 do
  local a = firstBatch + 5 * b
  local i = tonumber(ARGV[a])
  local id = ARGV[a + 1] .. '-0'
  redis.call('XADD', KEYS[3 + 2 * i], id, 'v', ARGV[a + 2])
  redis.call('XADD', KEYS[4 + 2 * i], id, 't', ARGV[a + 3], 's', #ARGV[a + 2])
  redis.call('HSET', KEYS[1], name[i], ARGV[a + 4] == '1' and 'closed' or 'open')
end

at = firstBatch + 5 * batches
for p = 1, tonumber(ARGV[at]) do
  local exporter, position = ARGV[at + 2 * p - 1], ARGV[at + 2 * p]
  if position == '' then
    redis.call('HDEL', KEYS[2], exporter)
  else
    redis.call('HSET', KEYS[2], exporter, position)
  end
end
return { 'stored' }
