-- Takes a staged key over. Does nothing if it is permanent: committed data is never replaced.
--
-- KEYS  record
-- ARGV  record bytes, TTL (ms)

if redis.call('PTTL', KEYS[1]) == -1 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
