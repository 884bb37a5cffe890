-- Reads the header of a manifest, the id record that it serves, and the base that this record may need: see
-- class GetServed in swapstore/commands.py.
--
-- KEYS  manifest
-- ARGV  key prefix of the id records, key prefix of the bases, largest payload (bytes) worth reading here
--
-- The names are in the manifest, so the keys cannot be passed in KEYS; all keys of a dataset are in one slot.
-- A server that refuses such a read makes the script answer with the header alone.

local manifest = redis.call('GET', KEYS[1])
if not manifest then
  return {}
end
local header = string.match(manifest, '^[^\n]*\n') or manifest
local readable, head = pcall(cjson.decode, header)
local row = readable and type(head) == 'table' and (type(head.pinned) == 'table' and head.pinned or head.latest)
if type(row) ~= 'table' or type(row.id) ~= 'string' or type(row.size) ~= 'number' or row.size > tonumber(ARGV[3]) then
  return {header}
end
local record = redis.pcall('GET', ARGV[1] .. row.id)
if type(record) ~= 'string' then
  return {header}
end
local base = type(row.base) == 'string' and redis.pcall('GET', ARGV[2] .. row.base)
return {header, record, type(base) == 'string' and base or nil}
