-- The commit, as class Swap in swapstore/commands.py defines it. commit() below is its five steps.
--
-- KEYS  manifest, live view, staged records..., unlinked records..., rewritten records...
-- ARGV  expected prefix ('': no manifest may be there), our prefix, manifest bytes, number of staged
--       records, staging TTL (ms), reader grace (ms), '1' if whole, plus 2 if even if full; then for each
--       staged record a digit and bytes. '0': a record that was staged before; the bytes are its header. '1':
--       the same, and the record is shared. '2': a record that the commit stages itself; the bytes are all of
--       it. '3': the same, and the record is shared. '4' and '5': like '2' and '3', but the header is not the
--       first line, but ends with its second comma: so a ts record states its entry and version. Then for
--       each rewritten record the header that it has now, after a '1' if the new record needs a base and a '0'
--       if not, and all of the new record.

local last = 2 + ARGV[4] -- KEYS[3] to KEYS[last] are the staged records
local more = (#ARGV - 3 - 2 * last) / 2 -- how many records are rewritten
local undo = {} -- keys of records without a TTL that get one if the commit is refused
local placed = {} -- what became of the records that the commit stages, by their place in KEYS
local compare, verify, rewrite, refuse

local function commit()
  local manifest, ours, pcall, verified = KEYS[1], ARGV[2], redis.pcall, {}
  local answer = compare(manifest, ARGV[1], ours) -- 1. Compare: the stored manifest is what ours builds on.
    or verify(verified) -- 2. Verify: every record that ours needs is there, and is staged.
    or rewrite() -- Every record to rewrite is there, and committed.
  if answer then
    return answer -- refused, or committed before
  end
  for _, key in ipairs(verified) do -- 3. Make permanent: none of these records expires any more.
    local done = pcall('PERSIST', key)
    if type(done) == 'table' then
      refuse()
      return done
    end
    if done == 1 then
      undo[#undo + 1] = key
    end
  end
  answer = rewrite('0') -- What needs no base can be read under both manifests.
  if answer then
    return answer
  end
  local swapped = pcall('SET', manifest, ARGV[3]) -- 4. THE COMMIT POINT.
  if swapped.err then
    refuse()
    return swapped
  end
  rewrite('1') -- 5. Housekeeping: the commit stands, whatever fails from here on.
  for i = last + 1, #KEYS - more do
    pcall('PEXPIRE', KEYS[i], ARGV[6])
  end
  pcall('UNLINK', KEYS[2])
  pcall('PUBLISH', manifest, ours)
  if #verified == 0 then
    return 'committed'
  end
  answer = {{'committed'}}
  for i = 3, last do
    answer[#answer + 1] = placed[i]
  end
  return answer
end

-- The answer says what became of the commit, and then of each record that it staged: 1, or 0 if the key was
-- taken, or the error. 'committed' alone: committed, and no key was taken.
--
-- Redis does not roll a script back. So every command that may fail between the first write and the SET is
-- pcall, and its error is returned after the writes were undone.
--
-- Each function here, and each local that functions share, costs the server time at every commit.

-- Compares the first bytes, which name the version. `whole`: all bytes; a value of another type equals ''.
function compare(manifest, expected, ours)
  local call, sub = redis.call, string.sub
  local stored, as_expected, damaged
  if ARGV[7] % 2 == 1 then
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
    return refuse('already')
  end
  if not as_expected then
    return refuse('mismatch', damaged and '' or call('GET', manifest))
  end
end

-- Stages a record, which saves the batch a command. Returns 1 if it was written.
local function place(i, ...)
  local done = redis.pcall('SET', KEYS[i], ARGV[3 + 2 * i], 'NX', ...)
  placed[i] = not done and 0 or done.err and done or 1
  return placed[i]
end

-- A record that the commit stages is written without a TTL, as step 3 would leave it. If its key is taken, or
-- the write fails, it is verified like a record that was staged before. Collects what step 3 has to persist: not
-- a base that is permanent already.
--
-- A full server refuses a script's writes that need memory, but only until the first write that needs none.
function verify(verified)
  local pcall = redis.pcall
  if ARGV[7] >= '2' then
    pcall('PERSIST', KEYS[1]) -- changes nothing
  end
  for i = 3, last do
    local key, what, record = KEYS[i], ARGV[2 + 2 * i], ARGV[3 + 2 * i]
    if what >= '2' and place(i) == 1 then
      undo[#undo + 1] = key
    else
      if what >= '2' then
        record = string.match(record, what >= '4' and '^[^,]*,[^,]*,' or '^[^\n]*\n') -- its header
      end
      local ttl = pcall('PTTL', key)
      if type(ttl) == 'table' then
        refuse()
        return ttl
      end
      if ttl == -2 then
        return refuse('unstaged', key, 0)
      end
      if ttl == -1 and what % 2 == 0 then
        return refuse('held', key)
      end
      if pcall('GETRANGE', key, 0, #record - 1) ~= record then
        return refuse('unstaged', key, 1)
      end
      if ttl ~= -1 or what >= '2' then
        verified[#verified + 1] = key
      end
    end
  end
end

-- Replaces the committed records whose new ones need no base ('0') or one ('1'); without an argument, compares
-- them all. A record that was replaced before a refusal stays so: it has the same payload, and needs less.
function rewrite(needing)
  local pcall = redis.pcall
  for i = 1, more do
    local key, what, done = KEYS[#KEYS - more + i], ARGV[2 + 2 * (last + i)]
    if needing == string.sub(what, 1, 1) then
      done = pcall('SET', key, ARGV[3 + 2 * (last + i)])
      if done.err and needing == '0' then
        refuse()
        return done
      end
    elseif not needing then
      done = pcall('PTTL', key)
      if type(done) == 'table' then
        refuse()
        return done
      end
      if done ~= -1 or pcall('GETRANGE', key, 0, #what - 2) ~= string.sub(what, 2) then
        return refuse('unstaged', key, done == -2 and 0 or 1)
      end
    end
  end
end

-- Leaves every record as if it had been staged, so that it need not be sent again. One that cannot be given
-- a TTL is unlinked: it would be permanent, and no version would ever name it.
function refuse(...)
  local pcall = redis.pcall
  for _, key in ipairs(undo) do
    if type(pcall('PEXPIRE', key, ARGV[5])) == 'table' then
      pcall('UNLINK', key)
    end
  end
  local answer = {{...}}
  for i = 3, last do
    if ARGV[2 + 2 * i] >= '2' and not placed[i] then
      place(i, 'PX', ARGV[5])
    end
    answer[#answer + 1] = placed[i]
  end
  return answer
end

return commit()
