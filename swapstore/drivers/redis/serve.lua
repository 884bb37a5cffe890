-- Reads the header of a manifest, the id record that it serves, and the base that this record may need: see
-- class GetServed in swapstore/commands.py.
--
-- KEYS  manifest
-- ARGV  key prefix of the id records, key prefix of the bases, largest record (bytes) worth reading here; for
--       members of a group: the key prefix of these instead of the first, and then their names
--
-- The names are in the manifest, so the keys cannot be passed in KEYS; all keys of a dataset are in one slot.
-- A server that refuses such a read makes the script answer with the header alone.

local largest = tonumber(ARGV[3])

-- What is stored may be far smaller than the payload.
local function read(key, size)
  if size > largest then
    size = redis.pcall('STRLEN', key)
  end
  local value = type(size) == 'number' and size <= largest and redis.pcall('GET', key)
  return type(value) == 'string' and value or nil
end

local manifest = redis.call('GET', KEYS[1])
if not manifest then
  return {}
end
local header = string.match(manifest, '^[^\n]*\n') or manifest
local readable, head = pcall(cjson.decode, header)
local row = readable and type(head) == 'table' and (type(head.pinned) == 'table' and head.pinned or head.latest)
if type(row) ~= 'table' or type(row.id) ~= 'string' or type(row.size) ~= 'number' then
  return {header}
end
local is_based = type(row.base) == 'string'
if #ARGV > 3 then
  if type(row.sha256) ~= 'string' then
    return {header}
  end
  local found, group = {header, false, false}, row.id .. ':' .. string.sub(row.sha256, 1, 8) .. ':'
  for i = 4, #ARGV do
    found[#found + 1] = read(ARGV[1] .. group .. ARGV[i], math.huge) or false
    found[#found + 1] = is_based and read(ARGV[2] .. row.base .. ':' .. ARGV[i], math.huge) or false
  end
  return found
end
local record = read(ARGV[1] .. row.id, row.size)
if not record then
  return {header}
end
return {header, record, is_based and read(ARGV[2] .. row.base, math.huge) or nil}
