"""More rules: several datasets in one batch, and a verify that must find nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from swapstore import Outcomes, Problem, Snapshot
from swapstore.testing import Fault
from tests.machine.machine import BOUNDS, FAULTS, IDS, KEYS, PAYLOADS, WHO, Machine
from tests.machine.model import Attempt


class Batching(Machine):
    """The rules of one dataset, and those of several."""

    @rule(who=WHO, id=IDS, payload=PAYLOADS, key=KEYS, fault=FAULTS)
    def publish_many(self, who: int, id: str, payload: bytes, key: str | None, fault: Fault | None) -> None:
        before, attempts = {}, {}
        for name, model in self.models.items():
            before[name] = model.alive
            attempts[name] = Attempt(id, payload)
            model.attempts.append(attempts[name])
            model.applying(BOUNDS.get(who))
        wanted = dict.fromkeys(self.models, payload)
        result = self.run(
            who, fault, lambda store: store.publish_many(wanted, id=id, dedupe_key=key, codec="bytes")
        )
        outcomes = result if isinstance(result, Outcomes) else dict.fromkeys(self.models, result)
        for attempt in attempts.values():
            attempt.late = bool(self.clients[who][1].late)
        self.observe()
        for name, model in self.models.items():
            self.check_outcome(model, outcomes[name], before[name], attempts[name], id=id, key=key)

    @rule(who=WHO, fault=FAULTS, stale=st.booleans())
    def read_latest_many(self, who: int, fault: Fault | None, stale: bool) -> None:
        bound = 3600.0 if stale else 0.0
        found: Any = self.run(
            who, fault, lambda store: store.read_latest_many(self.models, max_staleness=bound)
        )
        for name, model in self.models.items():
            if not isinstance(found, dict):
                self.check_snapshot(model, found, model.serving)
                continue
            snapshot = found[name]
            if not stale:
                self.check_snapshot(model, snapshot, model.serving)
            if isinstance(snapshot, Snapshot):
                self.check_stale(who, name, snapshot)

    @rule(who=WHO)
    def nothing_is_wrong(self, who: int) -> None:
        found = self.run(who, None, lambda store: [each for each in store.verify() if each.wrong])
        # A refused SADD leaves a dataset unlisted, until another client publishes or a repair lists it.
        allowed = {Problem.NAME_MISSING} if self.faults_happen else set()
        if self.unused_pages:
            allowed.add(Problem.LEAKED)  # of other records, `observe` has seen that they do not leak
        assert {each.problem for each in found} <= allowed
