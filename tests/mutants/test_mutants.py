"""Protocol mistakes, one by one: each must fail the check that is named for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.catalogue import MUTANTS, UNCHANGED
from tests.mutants.mutant import Edit, Mutant, mutant
from tests.mutants.workshop import WORKERS, Copy, Fate, Verdict, Workshop

pytestmark = pytest.mark.nightly

CHEAP = "unit/test_records.py::test_payload_of_a_matching_record"
HARMLESS = mutant("harmless", "None.", CHEAP, Edit("Keys", "frozen=True):", "frozen=True):\n"))
MISFITTING = mutant("misfitting", "None.", CHEAP, Edit("Keys", "no such text", ""))
UNTESTED = mutant("untested", "None.", "unit/test_records.py::test_no_such_test", *HARMLESS.edits)
UNPARSABLE = mutant("unparsable", "None.", CHEAP, Edit("Keys", "frozen=True):", "frozen=True)"))
UNDEFINED = mutant("undefined", "None.", CHEAP, Edit("held", "if record is None", "if no_such_name"))

Judge = Callable[[Mutant], Verdict]


@pytest.fixture(scope="module")
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    """Judges mutants. Those of all chosen tests are started at once, and judged in parallel.

    Where pytest itself runs in parallel (xdist), each of its processes judges one at a time.
    """
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    items: list[Any] = list(request.session.items)
    params = [
        item.callspec.params for item in items if item.path == request.path and hasattr(item, "callspec")
    ]
    with Workshop(WORKERS if alone else 1) as workshop:
        begun: dict[str, Future[Verdict]] = {}
        for each in params if alone else ():
            begun[each["suspect"].name] = workshop.judge(each["suspect"])
        yield lambda suspect: (begun.get(suspect.name) or workshop.judge(suspect)).result()


@pytest.mark.parametrize("suspect", [UNCHANGED], ids=["unchanged"])
def test_the_checks_pass_without_a_mutant(judge: Judge, suspect: Mutant) -> None:
    """A check that fails anyway would seem to kill its mutants."""
    verdict = judge(suspect)
    assert verdict.fate is Fate.SURVIVED, verdict.output


@pytest.mark.parametrize("suspect", MUTANTS, ids=lambda suspect: suspect.name)
def test_a_protocol_mistake_is_noticed(judge: Judge, suspect: Mutant) -> None:
    """This promise of the protocol can be broken without a failing test."""
    verdict = judge(suspect)
    assert verdict.is_dead, f"{suspect.promise} {verdict.fate.value}: {verdict.by}\n{verdict.output}"


@pytest.mark.parametrize(
    ("suspect", "fate"),
    [
        (HARMLESS, Fate.SURVIVED),
        (MISFITTING, Fate.ERROR),
        (UNTESTED, Fate.ERROR),
        (UNPARSABLE, Fate.ERROR),
        (UNDEFINED, Fate.ERROR),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_only_a_failed_test_kills(judge: Judge, suspect: Mutant, fate: Fate) -> None:
    """A harmless patch, one that does not fit or is broken code, and tests that did not run kill nothing."""
    verdict = judge(suspect)
    assert verdict.fate is fate
    assert (verdict.by == "its patch") == (suspect is MISFITTING)


def test_tests_that_do_not_end_are_stopped(tmp_path: Path) -> None:
    """A mistake that makes a publish wait without end must not block the suite: it counts as killed."""
    with Copy(tmp_path, timeout_s=0.05) as copy:
        assert copy.judge(HARMLESS).fate is Fate.TIMEOUT


def test_the_installed_library_is_not_what_is_tested(tmp_path: Path) -> None:
    """If the installed library were tested, mutants would seem to survive, or broken checks to kill."""
    with Copy(tmp_path) as copy:
        shutil.rmtree(copy.root / "swapstore")
        verdict = copy.run([CHEAP])
    assert verdict.fate is Fate.ERROR
    assert "not from the mutated copy" in verdict.output


def test_a_mutant_is_undone(tmp_path: Path) -> None:
    """The changes of one mutant would be judged together with the next."""
    with Copy(tmp_path) as copy:
        before = _texts(copy)
        assert copy.judge(UNPARSABLE).fate is Fate.ERROR
        assert _texts(copy) == before
        assert copy.run([CHEAP]).fate is Fate.SURVIVED


def _texts(copy: Copy) -> dict[Path, str]:
    return {path: path.read_text() for path in (copy.root / "swapstore").rglob("*.py")}
