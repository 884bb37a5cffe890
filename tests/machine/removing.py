"""Two more rules: erase and drop. What they remove is in no answer any more, and all else stays as it is."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from swapstore import Dropped, Erased
from swapstore.errors import NotFound, Refused, Unavailable, Unsupported
from swapstore.models import Row
from swapstore.testing import Crash, Fault
from tests.machine.batching import Batching
from tests.machine.machine import FAULTS, WHO
from tests.machine.model import Model
from tests.support import invariants

CUTS = st.none() | st.integers(0, 2)


def is_worth_a_drop(model: Model) -> bool:
    """Whether there is something to remove in several steps, so that runs are not all of empty datasets."""
    return len(model.rows) > 1 or bool(model.dropped_rows)


class Removing(Batching):
    """The rules of all that is published, and those of what is removed."""

    scripts_run = True  # else what others are stored against is not erased

    @precondition(lambda self: any(model.known for model in self.models.values()))
    @rule(who=WHO, data=st.data(), by_id=st.booleans(), force=st.booleans(), fault=FAULTS)
    def erase(self, who: int, data: Any, by_id: bool, force: bool, fault: Fault | None) -> None:
        name = data.draw(st.sampled_from([name for name, model in self.models.items() if model.known]))
        model = self.models[name]
        asked = data.draw(st.sampled_from([*model.alive, *model.alive, *model.known.values()]))
        id = asked.id
        found = [row for row in model.alive if (row.id == id if by_id else row.version == asked.version)]
        row = found[0] if found else None
        left = (0, 0) if row is None else model.without(row)
        needing = self._needing(name, row)
        against = len([each for each in model.alive if each.base])
        if row is not None:
            model.erasing.add(row.version)
        which: Any = {"id": id} if by_id else {"version": asked.version}
        served = row is not None and row.version in {model.latest, model.pinned}
        result = self.run(who, fault, lambda store: store.erase(name, **which, force=force))
        self.observe()
        self.settle(model)
        if isinstance(result, Erased):
            assert not served or (force and left[0])
            assert all(each.is_group for each in needing), "each of its members may be stored alone"
            self._check_erased(model, result, row)
            assert result.stored_anew <= against
        elif isinstance(result, NotFound):
            assert row is None
        elif isinstance(result, Refused):
            assert served
            assert not (force and left[0])
            assert row in model.alive
        elif isinstance(result, Unsupported):
            assert needing
            assert row in model.alive
        else:
            assert self.faults_happen, result
            assert isinstance(result, Unavailable | Crash), result
        if by_id and isinstance(result, Erased | NotFound):
            self._is_in_no_key(name, id)

    def _check_erased(self, model: Model, made: Erased, row: Row | None) -> None:
        assert model.latest, "something else is published"
        assert (made.latest, made.etag) == (model.latest, model.etag)
        if row is not None:
            assert (made.id, made.version) == (row.id, row.version)
            assert row not in model.alive

    def _needing(self, name: str, row: Row | None) -> list[Row]:
        """The rows that name a snapshot as their base, where nothing can store them anew."""
        if row is None or self.scripts_run:
            return []
        names = (row.sha256[:16], f"{row.sha256[:16]}g")  # the latter if it is a group
        others = [each for each in self.models[name].alive if each != row]
        return [each for each in others if each.base and each.base.partition(".")[2] in names]

    def _is_in_no_key(self, name: str, id: str) -> None:
        """Nothing that names the id is left. What was dropped leaves in its own time."""
        model = self.models[name]
        if not model.latest or any(row.id == id for row in model.dropped_rows):
            return
        named = f'"{id}"'.encode()
        store = self.observer
        for key, (value, _) in invariants.contents(store).items():
            told = store._context.keys.parse(key)
            if told is not None and told.dataset == name:
                assert named not in value, key
                assert told.id != id, key

    @precondition(lambda self: any(is_worth_a_drop(model) for model in self.models.values()))
    @rule(who=WHO, data=st.data(), cut=CUTS, fault=FAULTS)
    def drop(self, who: int, data: Any, cut: int | None, fault: Fault | None) -> None:
        """`cut`: the client dies after so many swaps, where no other fault happens, too."""
        name = data.draw(
            st.sampled_from([name for name in self.models if is_worth_a_drop(self.models[name])])
        )
        model = self.models[name]
        was, count = model.version, len(model.rows) + len(model.dropped_rows)
        model.dropping = True
        steps: list[int] = []

        def stop(left: int) -> None:
            steps.append(left)
            if len(steps) - 1 == cut:
                raise Crash("dead after a swap of a drop")

        result = self.run(who, fault, lambda store: store.drop(name, on_progress=stop))
        self.observe()
        self.settle(model)
        if steps:
            assert not model.latest, "something of it is still published"
        if isinstance(result, Dropped):
            assert not model.version, "something of it is left"
            assert not result.republished
            assert self.faults_happen or result.snapshots == count
        elif isinstance(result, NotFound):
            assert not was
        elif isinstance(result, Crash) and len(steps) - 1 == cut:
            assert steps == sorted(steps, reverse=True)
        else:
            assert self.faults_happen, result
            assert isinstance(result, Unavailable | Crash), result
