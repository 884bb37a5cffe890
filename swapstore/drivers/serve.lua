-- A manifest and the id record of what it serves, in one step: see swapstore/commands.py, class GetServed.
--
-- KEYS  manifest
-- ARGV  what the keys of the id records begin with, how many bytes of payload are worth it
--
-- The id is in the manifest, so the record's key cannot be given in KEYS; all keys of a dataset are in one
-- slot. Where that is refused all the same, the answer is the manifest alone.

local manifest = redis.call('GET', KEYS[1])
if not manifest then
  return {}
end
local readable, head = pcall(cjson.decode, string.match(manifest, '^[^\n]*'))
local row = readable and type(head) == 'table' and (type(head.pinned) == 'table' and head.pinned or head.latest)
if type(row) ~= 'table' or type(row.id) ~= 'string' or type(row.size) ~= 'number' or row.size > tonumber(ARGV[2]) then
  return {manifest}
end
local record = redis.pcall('GET', ARGV[1] .. row.id)
return {manifest, type(record) == 'string' and record or nil}
