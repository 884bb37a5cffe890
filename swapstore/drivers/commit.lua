-- The commit: see swapstore/commands.py, class Commit, whose steps these are. It may bring along records that
-- its batch stages: see class Stage there, and swapstore/drivers/redis_batch.py.
--
-- KEYS  manifest, live view, staged records..., unlinked records...
-- ARGV  expected prefix ('' = no manifest must be there), our prefix, manifest bytes, number of staged
--       records, staging TTL (ms), reader grace (ms), whole ('1' or '0'), then for each staged record: what
--       comes ('0': its header, and '1': the same, but it is shared; '2' and '3': all of it), and that
--
-- Answers what became of the commit, and behind it of each record that was brought along: 1, or 0 if its key
-- was taken, or the error. 'committed' alone: so it is, and no key was taken.
--
-- Up to the SET every error ends it with nothing committed, and what was done is undone. From the SET on the
-- commit stands, so what follows is pcall: a failure there must not look like one of the commit.

local call, pcall, sub = redis.call, redis.pcall, string.sub
local manifest, expected, ours = KEYS[1], ARGV[1], ARGV[2]
local last = 2 + ARGV[4]
local placed, undo, verified = {}, {}, {}

-- Stage a record that was brought along.
local function place(i, ...)
  local done = pcall('SET', KEYS[i], ARGV[3 + 2 * i], 'NX', ...)
  placed[i] = not done and 0 or done.err and done or 1
  return placed[i]
end

local function with_placed(answer)
  for i = 3, last do
    answer[#answer + 1] = placed[i]
  end
  return answer
end

-- Nothing is committed: leave all as if it had been staged, so that it need not be sent again. What can be
-- given no TTL must not stay: it would be permanent, and no version would ever name it.
local function refused(...)
  for _, key in ipairs(undo) do
    if type(pcall('PEXPIRE', key, ARGV[5])) == 'table' then
      pcall('UNLINK', key)
    end
  end
  for i = 3, last do
    if ARGV[2 + 2 * i] >= '2' and not placed[i] then
      place(i, 'PX', ARGV[5])
    end
  end
  return with_placed({{...}})
end

local function failed(error)
  refused()
  return error
end

-- 1. compare
local stored, as_expected, damaged
if ARGV[7] == '1' then
  local kind = call('TYPE', manifest).ok
  damaged = kind ~= 'string' and kind ~= 'none'
  stored = damaged and '' or call('GET', manifest) or ''
  as_expected = kind ~= 'none' and stored == expected
else
  stored = call('GETRANGE', manifest, 0, math.max(#expected, #ours) - 1)
  if expected == '' then
    as_expected = stored == '' and call('EXISTS', manifest) == 0
  else
    as_expected = sub(stored, 1, #expected) == expected
  end
end
if sub(stored, 1, #ours) == ours then
  return refused('already')
end
if not as_expected then
  return refused('conflict', damaged and '' or call('GET', manifest))
end

-- 2. verify. What is brought along, and finds its key free, is written as step 3 would leave it: without a TTL
for i = 3, last do
  local key, what, record = KEYS[i], ARGV[2 + 2 * i], ARGV[3 + 2 * i]
  if what >= '2' and place(i) == 1 then
    undo[#undo + 1] = key
  else
    if what >= '2' then
      record = string.match(record, '^[^\n]*\n')
    end
    local ttl = pcall('PTTL', key)
    if type(ttl) == 'table' then
      return failed(ttl)
    end
    if ttl == -2 then
      return refused('unstaged', key, 0)
    end
    if ttl == -1 and what % 2 == 0 then
      return refused('held', key)
    end
    if pcall('GETRANGE', key, 0, #record - 1) ~= record then
      return refused('unstaged', key, 1)
    end
    verified[#verified + 1] = key
  end
end

-- 3. make permanent, and remember what to undo if the store has no room for the manifest
for _, key in ipairs(verified) do
  local done = pcall('PERSIST', key)
  if type(done) == 'table' then
    return failed(done)
  end
  if done == 1 then
    undo[#undo + 1] = key
  end
end

-- 4. the commit point
local swapped = pcall('SET', manifest, ARGV[3])
if swapped.err then
  return failed(swapped)
end

-- 5. housekeeping
for i = last + 1, #KEYS do
  pcall('PEXPIRE', KEYS[i], ARGV[6])
end
pcall('UNLINK', KEYS[2])
pcall('PUBLISH', manifest, ours)
return #verified == 0 and 'committed' or with_placed({{'committed'}})
