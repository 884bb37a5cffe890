"""`swapstore erase` and `swapstore drop`: they ask before they do what cannot be undone."""

from __future__ import annotations

import pytest

from swapstore import connect
from tests.cli.conftest import Swapstore


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    with connect(swapstore.url) as store:
        for number in range(4):
            store.publish("mena", number, id=f"id-{number}")
    return swapstore


def ids(swapstore: Swapstore) -> list[str]:
    with connect(swapstore.url) as store:
        return [row.id for row in store.history("mena")]


def test_erase_prints_what_it_did(published: Swapstore) -> None:
    """A script cannot tell what is gone."""
    done = published("erase", "mena", "--version", "2", "--yes").json
    assert list(done) == ["dataset", "id", "version", "etag", "latest", "stored_anew"]
    assert (done["id"], done["version"], done["latest"]) == ("id-1", 2, 4)
    assert ids(published) == ["id-3", "id-2", "id-0"]
    again = published.inside("erase", "mena", "--id", "id-1", "--yes")
    assert (again.code, "no committed snapshot has id 'id-1'" in again.err) == (1, True)


def test_the_latest_needs_force(published: Swapstore) -> None:
    """A typo takes from readers what they are served."""
    refused = published.inside("erase", "mena", "--id", "id-3", "--yes")
    assert (refused.code, "--force" in refused.err) == (3, True)
    assert published.inside("erase", "mena", "--id", "id-3", "--force", "--yes").json["latest"] == 3


def test_drop_prints_what_it_did(published: Swapstore) -> None:
    """A script cannot tell what is gone."""
    assert published("drop", "mena", "--yes").json == {
        "dataset": "mena",
        "snapshots": 4,
        "republished": False,
    }
    assert published.inside("latest", "mena").code == 1
    assert published.inside("drop", "mena", "--yes").code == 1


@pytest.mark.parametrize("words", [("erase", "mena", "--version", "2"), ("drop", "mena")])
def test_without_a_terminal_it_has_to_be_said(published: Swapstore, words: tuple[str, ...]) -> None:
    """A script that was written for something else removes data, or waits for an answer for ever."""
    refused = published.inside(*words)
    assert (refused.code, "give --yes" in refused.err) == (2, True)
    assert len(ids(published)) == 4


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", 3), (b"n\n", 4), (b"\n", 4)])
def test_it_asks_on_a_terminal(published: Swapstore, answer: bytes, left: int) -> None:
    """It removes data without asking, or whatever the answer is."""
    seen = published.on_a_terminal("erase", "mena", "--version", "2", typed=answer)
    assert "for good? [y/N]" in seen.err
    assert len(ids(published)) == left
