"""Mistakes of the site: somebody writes who may not, or a producer over HTTP publishes twice, or half."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

WRITES, ACCESS, ACTIONS = (f"serve/test_{name}.py::test_" for name in ("writes", "access", "actions"))

EVENTS, SERVER = (f"serve/test_{name}.py::test_" for name in ("events", "server"))

MUTANTS = (
    mutant(
        "a client that has a greater version gets no event",
        "After a rollback, a client that comes back gets what is served.",
        EVENTS + "a_client_that_comes_back_gets_what_it_does_not_have[sqlite]",
        Edit("_Stream._news", "self._known != feed.id", "self._known is None or self._known < feed.id"),
    ),
    mutant(
        "an event is named by its version alone",
        "A client that was away during a drop gets what is served.",
        EVENTS + "a_client_that_comes_back_after_a_drop_gets_what_is_served[sqlite]",
        Edit("Feed._show", 'f"{found.version}-{found.committed_at}"', "str(found.version)"),
    ),
    mutant(
        "heavy work that is cancelled keeps its place in the line",
        "A server does not refuse work for requests that are gone.",
        "serve/test_heavy.py::test_work_that_nobody_waits_for_any_more_leaves_the_line",
        Edit("in_thread", "lambda _: _room.release()", "lambda done: done.cancelled() or _room.release()"),
    ),
    mutant(
        "a stream that ends before its first look says that nothing is published",
        "A client of a dataset that is published is not told that it is not.",
        EVENTS + "clients_share_a_view_that_is_closed_when_nobody_needs_it[sqlite]",
        Edit(
            "Feed.first_look",
            "with self.joined() as woken, suppress(TimeoutError):",
            "woken = asyncio.Event()\nwith suppress(TimeoutError):",
        ),
        Edit("Feed.first_look", "if self._is_read and", "if"),
    ),
    mutant(
        "an outage is no event",
        "A client knows that what it shows is old.",
        EVENTS + "an_outage_is_an_event_and_so_is_its_end",
        Edit("Feed._look", "if before != (self.number, self.state):", "if before[0] != self.number:"),
    ),
    mutant(
        "connections with a request make room first",
        "Idle connections cut nobody off.",
        SERVER + "idle_connections_make_room[sqlite]",
        Edit("Connections.enter", "self.idle or self.busy", "self.busy or self.idle"),
    ),
    mutant(
        "streams of events are cut off when the server stops",
        "A server that stops ends streams in order.",
        SERVER + "streams_end_when_the_server_stops[sqlite]",
        Edit("Server.shutdown", "await self._feeds.close()", "pass"),
    ),
    mutant(
        "a server on loopback answers to any name",
        "A foreign page cannot read what only this machine may.",
        SERVER + "other_names_of_this_machine_are_refused[sqlite-evil.example]",
        Edit("KnownHosts.__call__", "if name in self._hosts", "if host"),
    ),
    mutant(
        "a retry with an entity tag is compared before its commit is looked for",
        "A retry whose reply was lost ends in one commit, and says so.",
        WRITES + "a_retry_with_an_entity_tag_finds_its_first_attempt[sqlite]",
        Edit(
            "_publish",
            "expected = served.version if served is not None and has_it else NEVER",
            """expected = served.version if served is not None and has_it else NEVER
if expected == NEVER:
    raise Conflict("another one")""",
        ),
    ),
    mutant(
        "a body counts against the room when it has arrived",
        "The memory for bodies is bounded.",
        WRITES + "the_bodies_of_all_clients_are_bounded[sqlite]",
        Edit("read", "share.grow_to(size)", "pass"),
        Edit("read", "share.grow_to(len(body) + len(chunk))", "pass"),
    ),
    mutant(
        "the room of a body that did not arrive stays taken",
        "Other producers can publish after slow clients.",
        WRITES + "a_body_that_does_not_arrive[sqlite]",
        Edit("Room.share", "self._free += share.bytes", "pass"),
    ),
    mutant(
        "a body that ended early is whole",
        "A client that goes away in the middle publishes nothing.",
        WRITES + "the_bodies_of_all_clients_are_bounded[sqlite]",
        Edit("read", 'raise HTTPException(400, "the body ended early")', "break"),
    ),
    mutant(
        "a password for a proxy counts as a token",
        "A page of another site writes nothing.",
        ACCESS + "a_page_of_another_site_writes_nothing[sqlite-/datasets/mena/confirm]",
        Edit("_from_elsewhere", "is_bearer(request)", '"authorization" in request.headers'),
    ),
    mutant(
        "a browser that does not say where a request is from may write",
        "A page of another site writes nothing.",
        ACCESS + "a_page_of_another_site_writes_nothing[sqlite-/datasets/mena/confirm]",
        Edit("_from_elsewhere", "COOKIE not in request.cookies", "True"),
    ),
    mutant(
        "any path leads on after signing in",
        "Signing in ends on this site.",
        ACCESS + "signing_in_leads_to_this_site_alone[sqlite]",
        Edit("_OWN_PATH", r"(?![/\\])[!-\[\]-~]*", r"(?s:.)*"),
    ),
    mutant(
        "a session has no end",
        "Who has a cookie of long ago signs in again.",
        ACCESS + "sessions_cannot_be_forged[sqlite]",
        Edit("Access._role_by_session", "if time.time() < expires else Role.NOBODY", ""),
    ),
    mutant(
        "a path that a proxy has decoded is not found, and nothing more",
        "Who runs a proxy that decodes %2F is told.",
        "serve/test_reads.py::test_a_name_with_slashes_and_dots_is_one_segment_of_a_path[sqlite]",
        Edit("_not_served", "NO_PATH if is_unknown else detail", "detail"),
    ),
    mutant(
        "a confirmation holds whatever has happened since",
        "A person does what the page has shown.",
        ACTIONS + "what_has_moved_on_is_shown_anew[sqlite-]",
        Edit("_do", "seen != status.etag", "not seen"),
    ),
)
