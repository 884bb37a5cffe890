-- The commit: see swapstore/commands.py, class Commit, whose steps these are.
--
-- KEYS  manifest, live view, staged records..., unlinked records...
-- ARGV  expected prefix ('' = no manifest must be there), our prefix, manifest bytes, number of staged
--       records, staging TTL (ms), reader grace (ms), whole ('1' or '0'), then for each staged record:
--       shared ('1' or '0'), header
--
-- Up to the SET every error aborts with nothing committed. From the SET on the commit stands, so what
-- follows is pcall: a failure there must not look like one of the commit.

local manifest, live = KEYS[1], KEYS[2]
local expected, ours, value = ARGV[1], ARGV[2], ARGV[3]
local staged, staging_ttl, grace = tonumber(ARGV[4]), ARGV[5], ARGV[6]

-- 1. compare
local whole = ARGV[7] == '1'
local kind = whole and redis.call('TYPE', manifest).ok
local damaged = whole and kind ~= 'string' and kind ~= 'none'
local stored = ''
if not damaged then
  stored = redis.call('GETRANGE', manifest, 0, math.max(#expected, #ours) - 1)
end
local function stored_begins_with(prefix)
  return string.sub(stored, 1, #prefix) == prefix
end
if stored_begins_with(ours) then
  return {'already'}
end
local as_expected
if whole then
  as_expected = kind ~= 'none' and stored == expected and (damaged or redis.call('STRLEN', manifest) == #expected)
elseif expected == '' then
  as_expected = stored == '' and redis.call('EXISTS', manifest) == 0
else
  as_expected = stored_begins_with(expected)
end
if not as_expected then
  return {'conflict', damaged and '' or redis.call('GET', manifest)}
end

-- 2. verify
for i = 1, staged do
  local key, shared, header = KEYS[2 + i], ARGV[6 + 2 * i], ARGV[7 + 2 * i]
  local ttl = redis.call('PTTL', key)
  if ttl == -2 then
    return {'unstaged', key, 0}
  end
  if ttl == -1 and shared == '0' then
    return {'held', key}
  end
  if redis.pcall('GETRANGE', key, 0, #header - 1) ~= header then
    return {'unstaged', key, 1}
  end
end

-- 3. make permanent, and remember what to undo if the store has no room for the manifest
local persisted = {}
for i = 1, staged do
  local key = KEYS[2 + i]
  if redis.call('PERSIST', key) == 1 then
    persisted[#persisted + 1] = key
  end
end

-- 4. the commit point
local swapped = redis.pcall('SET', manifest, value)
if type(swapped) == 'table' and swapped.err then
  for _, key in ipairs(persisted) do
    redis.pcall('PEXPIRE', key, staging_ttl)
  end
  return swapped
end

-- 5. housekeeping
for i = 3 + staged, #KEYS do
  redis.pcall('PEXPIRE', KEYS[i], grace)
end
redis.pcall('UNLINK', live)
redis.pcall('PUBLISH', manifest, ours)
return {'committed'}
