-- Reads a manifest and the id record that it serves: see class GetServed in swapstore/commands.py.
--
-- KEYS  manifest
-- ARGV  key prefix of the id records, largest payload (bytes) that is worth reading here
--
-- The id is in the manifest, so the record's key cannot be passed in KEYS; all keys of a dataset are in one
-- slot. A server that refuses such a read makes the script answer with the manifest alone.

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
