"""A copy of the data that reads are served from, as old as a test wants it.

It stands for a read replica of a global database. The copy is database 1 of the same server. Keys lag one by
one: replicas of different regions do not promise to show two writes in their order.
"""

from __future__ import annotations

import threading

from tests.support.resp import Failure, Wire

COPY_DATABASE = 1

# Updates every key of the copy except those that lag; a pattern that ends in * is a prefix.
_REFRESH = """
local function lags(key)
  for _, each in ipairs(ARGV) do
    if each == key or (each:sub(-1) == '*' and key:sub(1, #each - 1) == each:sub(1, -2)) then return true end
  end
  return false
end
redis.call('SELECT', 1)
local copied = redis.call('KEYS', '*')
redis.call('SELECT', 0)
local gone = {}
for _, key in ipairs(copied) do
  if not lags(key) and redis.call('EXISTS', key) == 0 then gone[#gone + 1] = key end
end
for _, key in ipairs(redis.call('KEYS', '*')) do
  if not lags(key) then redis.call('COPY', key, key, 'DB', 1, 'REPLACE') end
end
redis.call('SELECT', 1)
for _, key in ipairs(gone) do redis.call('DEL', key) end
redis.call('SELECT', 0)
return #gone
"""

_ONE = """
if redis.call('COPY', KEYS[1], KEYS[1], 'DB', 1, 'REPLACE') == 0 then
  redis.call('SELECT', 1)
  redis.call('DEL', KEYS[1])
  redis.call('SELECT', 0)
end
return 0
"""


class Lag:
    """Which keys lag, and since when.

    A position counts the commands that wrote. A sync token names one; a request with a token later than the
    copy is read from the primary, unless `honours_sync_token` is off. Upstash makes the replica wait until it
    has caught up; to the client that is the same.
    """

    def __init__(self, port: int) -> None:
        self.honours_sync_token = True
        self._port = port
        self._lock = threading.Lock()
        self._lagging: tuple[str, ...] | None = None  # None: no key lags, and reads go to the primary
        self._writes = 0
        self._position = 0

    def start(self) -> None:
        """From now on reads see the data as it is at this moment."""
        self.only("*")

    def only(self, *keys: str) -> None:
        """From now on reads see these keys as they are now, and all others up to date.

        A name that ends in `*` is a prefix.
        """
        with self._lock:
            self._refresh(())
            self._lagging = keys
            self._position = self._writes

    def catch_up(self, *keys: str) -> None:
        """Show what was written until now, of these keys or of all. They go on lagging from here."""
        with self._lock:
            if not keys:
                self._refresh(())
                self._position = self._writes
                return
            self._run(*(("EVAL", _ONE, 1, key) for key in keys))

    def stop(self) -> None:
        """Reads go to the primary again."""
        with self._lock:
            self._lagging = None

    def wrote(self) -> int:
        """Count a write; return the position after it."""
        with self._lock:
            self._writes += 1
            return self._writes

    def reads_copy(self, known: int) -> bool:
        """Say whether a client that knows this position reads from the copy, and prepare the copy for it."""
        with self._lock:
            if self._lagging is None or (self.honours_sync_token and known > self._position):
                return False
            if self._lagging != ("*",):
                self._refresh(self._lagging)
            return True

    def position(self, *, of_copy: bool) -> int:
        with self._lock:
            return self._position if of_copy else self._writes

    def _refresh(self, lagging: tuple[str, ...]) -> None:
        self._run(("EVAL", _REFRESH, 0, *lagging))

    def _run(self, *commands: tuple[str | int, ...]) -> None:
        wire = Wire(self._port)
        try:
            for reply in wire.ask_all(commands):
                assert not isinstance(reply, Failure), reply
        finally:
            wire.close()
