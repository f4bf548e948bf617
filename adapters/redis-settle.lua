-- Carries out a settlement in one step, in this order: notes, releases, trims, drops.
--
-- KEYS[1]  hash: every stream of the collector, "<incarnation>/<partition>" -> "open" | "closed"
-- KEYS[2]  hash: what Kafka confirmed, "<incarnation>/<partition>" -> "<sequence> <offset> <topic id>"
-- KEYS[3 + 2i], KEYS[4 + 2i]  for the i-th point (from 0): its stream of batches, its stream of totals
-- ARGV[1]  number of notes, and for each: name, text
-- then     for each point: "release" | "trim" | "drop", name, through
local at = 2
for _ = 1, tonumber(ARGV[1]) do
  if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 1 then
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  end
  at = at + 2
end

local function endsAt(key)
  if redis.call('EXISTS', key) == 0 then
    return 0
  end
  local info = redis.call('XINFO', 'STREAM', key)
  for j = 1, #info, 2 do
    if info[j] == 'last-generated-id' then
      return tonumber(string.match(info[j + 1], '^(%d+)-'))
    end
  end
  return 0
end

local i = 0
while at <= #ARGV do
  local batches, totals = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  local what, name, through = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if what == 'drop' then
    if redis.call('HGET', KEYS[1], name) == 'closed' and redis.call('XLEN', totals) == 0 and endsAt(totals) == through then
      redis.call('DEL', batches, totals)
      redis.call('HDEL', KEYS[1], name)
      redis.call('HDEL', KEYS[2], name)
    end
  else
    local first = string.format('%d-0', through + 1)
    redis.call('XTRIM', batches, 'MINID', '=', first)
    if what == 'trim' then
      redis.call('XTRIM', totals, 'MINID', '=', first)
    end
  end
  at = at + 3
  i = i + 1
end
return 'OK'
