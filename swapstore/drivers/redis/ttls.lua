-- Returns the TTL of each key: see class Ttls in swapstore/commands.py.
--
-- KEYS  records

local call, found = redis.call, {}
for i, key in ipairs(KEYS) do
  found[i] = call('PTTL', key)
end
return found
