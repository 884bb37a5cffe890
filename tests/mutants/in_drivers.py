"""Mistakes between the protocol and the wire: resending, replies that are not checked, weaker settings."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

CONTRACT = "drivers/test_contract.py::TestDrivers::test_"
SERVER = "real/test_server.py::test_"

MUTANTS = (
    mutant(
        "the driver resends a batch",
        "A driver never sends again what may have been applied: only the operation may.",
        SERVER + "a_borrowed_client_with_retries_sends_a_commit_once",
        Edit(
            "RedisDriver.execute",
            "found = answers(request.units, self.receive(request), self.where)",
            "from swapstore.errors import ReplyLost\n"
            "try:\n"
            "    replies = self.receive(request)\n"
            "except ReplyLost:\n"
            "    request = self.send(bundled(commands))\n"
            "    replies = self.receive(request)\n"
            "found = answers(request.units, replies, self.where)",
        ),
    ),
    mutant(
        "the rest of a large request is sent on another connection",
        "What is left of a request never goes to a server that has not seen its beginning.",
        "real/test_wrong_addresses.py::test_a_request_is_not_continued_on_another_connection",
        Edit("_send_in_portions", "if sock is None:", "if False:"),
        Edit(
            "_send_in_portions",
            "sock.sendall(portion)",
            "connection.send_packed_command([portion], check_health=False)",
        ),
    ),
    mutant(
        "a node of a cluster without the list is published to",
        "A dataset is not published where its name is refused: nobody would find it.",
        "real/test_wrong_addresses.py::test_the_nodes_of_a_cluster",
        Edit("_load_beside_the_list", "isinstance(ttl, Failed)", "False"),
    ),
    mutant(
        "NOSCRIPT not handled",
        "A restart or SCRIPT FLUSH between two publishes is not noticed by the caller.",
        SERVER + "flushed_scripts_cost_one_round_trip_and_nothing_else",
        Edit("RedisDriver.receive", "if unknown", "if False"),
    ),
    mutant(
        "an error reply taken for a value",
        "A success status around a failed command is a failure.",
        "store/test_damage.py::test_another_type_of_value_is_named[fakeredis]",
        Edit("_answer", "isinstance(reply, redis.RedisError)", "False"),
    ),
    mutant(
        "a lost connection taken for a refusal",
        "A commit whose connection broke may have been applied; it is never reported as refused.",
        SERVER + "a_reply_lost_on_the_wire_is_one_commit",
        Edit("of_exchanging", "return lost", "return Unavailable(str(lost))"),
    ),
    mutant(
        "staged without NX",
        "A second producer with one id does not overwrite what the first staged.",
        CONTRACT + "stage_writes_only_a_free_key[fakeredis]",
        Edit("_FRAMES", '"NX", "PX", stage.ttl_ms', '"PX", stage.ttl_ms'),
    ),
    mutant(
        "staged without a TTL",
        "What a crashed publish has staged expires.",
        CONTRACT + "a_staged_record_expires[fakeredis]",
        Edit("_FRAMES", '"NX", "PX", stage.ttl_ms', '"NX"'),
    ),
    mutant(
        "SQLite synchronous weakened",
        "An acknowledged publish is on disk.",
        "real/test_sqlite.py::test_acknowledged_means_on_disk",
        Edit("_prepare", "synchronous = FULL", "synchronous = NORMAL"),
    ),
    mutant(
        "SQLite writes into a deleted file",
        "A producer does not acknowledge a publish into a file that no other process can see.",
        "real/test_sqlite.py::test_a_file_that_was_deleted_or_replaced_is_opened_anew",
        Edit("Opened.is_usable", "now.files != self.look.files or self._is_overwritten()", "False"),
    ),
    mutant(
        "a restore leaves a log that follows on nothing",
        "A store is open to every process right after a restore.",
        "real/test_sqlite_backup.py::test_a_restore_beside_a_checkpoint[1]",
        Edit("_keep_in_log", 'reader.execute("BEGIN")', "pass"),
    ),
    mutant(
        "SQLite acknowledges what it committed into a removed file",
        "An acknowledged publish is in the files that other processes open.",
        "real/test_sqlite_identity.py::test_a_commit_into_a_file_that_went_away_is_not_acknowledged",
        Edit("SqliteDriver._require_in_place", "not opened.is_in_place()", "False"),
    ),
    mutant(
        "SQLite shows readers what was only begun",
        "On a file with a rollback journal, a user who may not write reads no unfinished transaction.",
        "real/test_sqlite_readers.py::test_a_transaction_that_begins_just_before_the_file_is_opened",
        Edit("Opened.is_unchanged", "not is_begun and ", ""),
    ),
    mutant(
        "SQLite tells a restore that was slow as refused",
        "A restore that is committed is never reported as one that changed nothing.",
        "real/test_sqlite_backup.py::test_a_restore_that_takes_longer_than_a_lock_is_waited_for",
        Edit("_waiting", "status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and ", ""),
    ),
    mutant(
        "SQLite takes the log of another file",
        "A restored file is not mixed with the log of the former one.",
        "real/test_sqlite_identity.py::test_the_log_of_another_file_is_refused",
        Edit("State.is_known", "not layouts.isdisjoint(log.schema_versions)", "True"),
    ),
    mutant(
        "SQLite closes a connection whose log is another's",
        "The end of a process does not delete the commits of others.",
        "real/test_sqlite_identity.py::test_a_log_that_is_removed_by_hand",
        Edit("Opened.reason_not_to_close", "self.access is not Access.WRITE or", "True or"),
    ),
    mutant(
        "a child inherits an open SQLite file",
        "When a process closes its store, the log that its child writes is not deleted.",
        "real/test_sqlite_forks.py::test_a_child_goes_on_when_its_parent_has_closed_the_file",
        Edit("SqliteDriver.before_fork", "self._drain()", "[]"),
    ),
    mutant(
        "SQLite collects a connection that it may not close",
        "A process whose log was replaced does not delete the commits of others.",
        "real/test_sqlite_identity.py::test_a_log_that_is_removed_by_hand",
        Edit("Opened.close", "ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.connection))", "pass"),
    ),
    mutant(
        "a reader on SQLite makes a log of its own",
        "A user who may only read leaves no file that blocks the owner.",
        "real/test_sqlite_readers.py::test_between_the_runs_of_a_producer",
        Edit("_access", "Access.READ if", "Access.WRITE if True or"),
    ),
    mutant(
        "a reader on SQLite creates the file",
        "A reader with a misspelt path leaves no empty store there.",
        "real/test_sqlite_readers.py::test_a_store_that_is_not_there_is_not_created_by_reading_it",
        Edit("open_file", "not writes and before.is_nothing", "False"),
    ),
    mutant(
        "a connection lent without a check (Redis)",
        "A batch is not sent on a connection that the server has closed, and never gets another's reply.",
        "real/test_pool.py::test_a_connection_with_a_stray_reply_is_not_lent",
        Edit("is_quiet", "not connection.can_read()", "True"),
    ),
    mutant(
        "a refused command breaks its batch (Redis)",
        "A refusal is the reply to one command: those of its neighbours are read.",
        "unit/test_redis_replies.py::test_an_error_is_that_of_one_command",
        Edit(
            "RedisDriver._read",
            "replies.append(_reply(read))",
            "replies.append(read(disable_decoding=True))",
        ),
    ),
    mutant(
        "replies decoded as text (Redis)",
        "A borrowed client that decodes replies does not change what is read.",
        SERVER + "a_borrowed_client_is_used_and_never_closed[True]",
        Edit(
            "_reply",
            "return read(disable_decoding=True)",
            "return read()",
        ),
    ),
    mutant(
        "a batch that was begun taken for one that was refused",
        "What a loading server may have carried out is never reported as refused.",
        "unit/test_redis_replies.py::test_loading_as_a_borrowed_client_reads_it",
        Edit("of_exchanging", "isinstance(each, ReadCommand)", "each"),
    ),
    mutant(
        "a stale answer of a demoted primary stands",
        "A commit that a demoted server compared with its own old manifest is sent again.",
        "unit/test_recovery.py::test_what_a_demoted_server_compared_with_its_own_data_is_sent_again",
        Edit("_is_done", "isinstance(reply, Committed)", "True"),
    ),
    mutant(
        "a commit of an outage told as refused",
        "What was carried out before the server was gone is not told as an outage.",
        "unit/test_recovery.py::test_what_was_carried_out_is_not_told_as_an_outage",
        Edit("_given_up", "not any(done)", "True"),
    ),
    mutant(
        "a primary that was replaced is not left (Sentinel)",
        "Connections to a primary that the sentinels replaced are not used, also when it goes on to answer.",
        "real/test_sentinel.py::test_connections_to_a_primary_that_was_cut_off_are_not_used",
        Edit("_Leads.should_reconnect", "!= self._sentinels.named", "!= (self.host, self.port)"),
    ),
    mutant(
        "a node answers what another one was asked (doctor)",
        "A question for one node of a cluster is answered by that node or by none.",
        "cluster/test_doctor.py::test_a_replica_that_is_stopped",
        Edit("Topology._any", "== command.node), None)", "== command.node), table.primaries[0])"),
    ),
    mutant(
        "a primary that accepts publishes while it is cut off is called sound (doctor)",
        "Beside replicas, min-replicas-to-write 0 is a warning.",
        "doctor/test_topology_replies.py::test_a_primary_that_is_cut_off",
        Edit("min_replicas", "if least == 0", "if least == -1"),
    ),
    mutant(
        "a pinned commit hides the gap before it",
        "A follower is told of commits that are gone before it gets what came after them.",
        "follow/test_model.py::test_what_is_given_is_what_was_committed",
        Edit("onward", "head.opens(ref) or parts(ref)", "head.opens(ref)"),
    ),
    mutant(
        "what was returned before is returned again unsaid",
        "A follower gives a commit again only after a gap that says that the store went back.",
        "follow/test_gaps.py::test_nothing_is_given_twice_without_a_gap_before_it",
        Edit("Place._is_given_again", "mark is not None and", "False and"),
    ),
    mutant(
        "a write carried out twice after a failover",
        "What was carried out before the primary was demoted is not sent again.",
        "unit/test_recovery.py::test_what_was_carried_out_is_not_sent_again",
        Edit("_is_done", "not isinstance(command, ReadCommand)", "False"),
    ),
    mutant(
        "idle connections to a demoted server kept (Redis)",
        "After a failover no idle connection to the demoted server is used.",
        SERVER.replace("test_server", "test_failover")
        + "reads_move_to_the_new_primary_with_the_first_publish[valkey]",
        Edit("RedisDriver.execute", "if misdirected(commands, found):", "if False:"),
    ),
    mutant(
        "no waiting thread gets a connection that is free again (Redis)",
        "A thread that waits for a connection gets the next free one.",
        "real/test_pool.py::test_a_waiting_thread_gets_the_next_free_connection_at_once",
        Edit("Pool.release", "elif self._waiting:", "elif False:"),
    ),
    mutant(
        "a record is replaced whatever it is by now",
        "A swap stores anew only what it has read, and what is committed.",
        "drivers/test_contract.py::TestDrivers::test_a_commit_rewrites_only_what_it_has_seen[valkey]",
        Edit(
            "commit.lua",
            "if done ~= -1 or pcall('GETRANGE', key, 0, #what - 2) ~= string.sub(what, 2) then",
            "if false then",
        ),
    ),
    mutant(
        "a refused commit leaves permanent records (SQLite)",
        "What was staged and not committed expires.",
        "unit/test_sqlite_batch.py::test_a_refused_commit_leaves_staged_records_in_the_file",
        Edit("SqliteDriver._write", "batch.finish()", "pass"),
    ),
    mutant(
        "a grace on a disk that is nearly full",
        "Old records take no room for longer where there is next to none.",
        "real/test_sqlite.py::test_what_is_unlinked_goes_at_once_where_room_is_short[True]",
        Edit("SqliteDriver._execute", "_unlinks(commands) and", "False and"),
    ),
    mutant(
        "an ASK taken for the whole slot (cluster)",
        "A key that has not moved yet is read where it is, and never told as missing.",
        "cluster/test_driver.py::test_what_has_not_moved_yet_is_not_missing[blocking]",
        Edit("Topology._place_of", "key = keys_of(command)[0]", "key = str(slot)"),
        Edit(
            "Topology._learn",
            "self._asks.update(dict.fromkeys(keys_of(unit), (to, time.monotonic())))",
            "self._asks[str(told.slot)] = to, time.monotonic()",
        ),
    ),
    mutant(
        "a wait for replicas parted from its write (cluster)",
        "A node acknowledges only what was written on the connection that waits.",
        "cluster/test_driver.py::test_a_wait_goes_where_the_write_before_it_went[blocking]",
        Edit("_is_parted", "return is_same and (group is None", "return False and (group is None"),
    ),
    mutant(
        "a lost group taken for a refused one (cluster)",
        "What one node may have carried out is never told as refused, whatever the others answered.",
        "cluster/test_driver.py::test_a_group_whose_reply_is_lost[blocking]",
        Edit("Topology._outcome", "isinstance(failure, ReplyLost) and not", "False and not"),
    ),
    mutant(
        "a node that was cut off is asked for the table again and again (cluster)",
        "A store finds the new primary of a shard, also while the old one or others do not know of it.",
        "cluster/test_answers.py::test_nodes_that_name_one_that_is_gone_are_not_the_only_ones_asked[blocking]",
        Edit("Topology._rank", "self._asked.get(node, 0)", "0"),
    ),
    mutant(
        "threads that ask sentinels lose one another's list (Redis)",
        "A store that threads share knows its sentinels as long as it is open.",
        "unit/test_sentinels.py::test_threads_that_ask_at_the_same_time_lose_no_sentinel",
        Edit(
            "_Sentinels._prefer",
            "self._clients = sorted(self._clients, key=lambda each: each[1] is not client)",
            "self._clients.sort(key=lambda each: each[1] is not client)",
        ),
    ),
    mutant(
        "a scan ends although slots have moved (cluster)",
        "Repair finds every committed snapshot, also of a dataset whose slot moves.",
        "cluster/test_driver.py::test_a_scan_finds_keys_whose_slot_moves_meanwhile[blocking]",
        Edit("ClusterDriver._scan", 'state != place.state or state.startswith("+")', "False"),
    ),
    mutant(
        "a mirror looks at the manifest before it has written (cluster)",
        "The last writer of the old keys has seen that its value was right after it wrote it.",
        "cluster/test_store.py::test_a_mirror_whose_keys_are_on_another_node",
        Edit("_MirrorRun._write", "self.ctx.capabilities.keeps_order", "True"),
    ),
)
