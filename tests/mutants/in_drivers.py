"""Mistakes between the protocol and the wire: resending, replies that are not looked at, weaker settings."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

CONTRACT = "drivers/test_contract.py::TestDrivers::test_"
SERVER = "real/test_server.py::test_"
REDIS, WIRE = "drivers/redis.py", "drivers/redis_wire.py"

MUTANTS = (
    mutant(
        "the driver resends a batch",
        "What may have been applied is not sent again behind the operation's back.",
        SERVER + "a_borrowed_client_with_retries_sends_a_commit_once",
        Edit(
            REDIS,
            "            replies = self._exchange(connection, units)\n",
            "            try:\n"
            "                replies = self._exchange(connection, units)\n"
            "            except redis_errors.ReplyLost:\n"
            "                replies = self._exchange(connection, units)\n",
        ),
    ),
    mutant(
        "NOSCRIPT not handled",
        "A restart or SCRIPT FLUSH between two publishes is not noticed by the caller.",
        SERVER + "flushed_scripts_cost_one_round_trip_and_nothing_else",
        Edit(REDIS, "            if unknown:", "            if False:"),
    ),
    mutant(
        "an error reply taken for a value",
        "A success status around a failed command is a failure.",
        "store/test_damage.py::test_another_type_of_value_is_named[fakeredis]",
        Edit(
            "drivers/redis_common.py",
            "def _answer(command: Command[Any], reply: Any, where: str) -> Any:\n"
            "    if isinstance(reply, redis.RedisError):",
            "def _answer(command: Command[Any], reply: Any, where: str) -> Any:\n    if False:",
        ),
    ),
    mutant(
        "a lost connection taken for a refusal",
        "A commit whose connection broke may have been applied; it is never reported as refused.",
        SERVER + "a_reply_lost_on_the_wire_is_one_commit",
        Edit("drivers/redis_errors.py", "        return ReplyLost(\n", "        return Unavailable(\n"),
    ),
    mutant(
        "staged without NX",
        "A second producer with one id does not overwrite what the first staged.",
        CONTRACT + "stage_writes_only_a_free_key[fakeredis]",
        Edit(
            WIRE,
            '("SET", stage.key, (stage.record, stage.body), "NX", "PX", stage.ttl_ms)',
            '("SET", stage.key, (stage.record, stage.body), "PX", stage.ttl_ms)',
        ),
    ),
    mutant(
        "staged without a TTL",
        "What a crashed publish left behind goes away by itself.",
        CONTRACT + "a_staged_record_expires[fakeredis]",
        Edit(
            WIRE,
            '("SET", stage.key, (stage.record, stage.body), "NX", "PX", stage.ttl_ms)',
            '("SET", stage.key, (stage.record, stage.body), "NX")',
        ),
    ),
    mutant(
        "SQLite synchronous weakened",
        "An acknowledged publish is on disk.",
        "real/test_sqlite.py::test_acknowledged_means_on_disk",
        Edit("drivers/sqlite_file.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),
    ),
    mutant(
        "SQLite writes into a deleted file",
        "A producer does not acknowledge into a file that nobody else can see.",
        "real/test_sqlite.py::test_a_file_that_was_deleted_or_replaced_is_opened_anew",
        Edit("drivers/sqlite.py", "if opened.identity == _identity(self._path):", "if True:"),
    ),
    mutant(
        "a connection lent without a look (Redis)",
        "A batch is not sent on a connection that the server has closed, nor is it given another's reply.",
        "real/test_pool.py::test_a_connection_with_an_answer_to_nobody_is_not_lent",
        Edit("drivers/redis_pool.py", "link.is_quiet() if link is not None else", "True if link else"),
    ),
    mutant(
        "nobody is woken up for a connection (Redis)",
        "A thread that waits for a connection is given the next one that is free.",
        "real/test_pool.py::test_more_threads_than_connections_all_have_their_turn",
        Edit("drivers/redis_pool.py", "        if self._waiting:\n            self._hand_over()\n", ""),
    ),
    mutant(
        "a refused commit leaves permanent records (SQLite)",
        "What was staged and not committed goes away by itself.",
        "unit/test_sqlite_batch.py::test_a_refused_commit_leaves_staged_records_in_the_file",
        Edit("drivers/sqlite.py", "                batch.finish()\n", ""),
    ),
)
