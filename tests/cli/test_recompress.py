"""`swapstore recompress`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Swapstore


def fill(swapstore: Swapstore, count: int) -> None:
    for number in range(count):
        swapstore.inside("publish", "mena", stdin=b"[%b%d]" % (b"10, 20, 30, " * 100, number))


def test_it_prints_what_it_did(swapstore: Swapstore) -> None:
    """A script cannot tell whether anything is left, or how much smaller the history is."""
    fill(swapstore, 5)
    part = swapstore("recompress", "mena", "--compression", "delta", "--limit", "2").json
    assert (part["dataset"], part["compression"], part["stored_anew"], part["left"]) == (
        "mena",
        "delta",
        2,
        3,
    )
    assert part["bytes_after"] < part["bytes_before"] / 2
    rest = swapstore.inside("recompress", "mena", "--compression", "delta").json
    assert (rest["stored_anew"], rest["left"]) == (3, 0)
    again = swapstore.inside("recompress", "mena", "--compression", "delta").json
    assert (again["stored_anew"], again["version"]) == (0, rest["version"])


def test_a_person_reads_a_line(swapstore: Swapstore) -> None:
    """A person would get JSON, or would not see what is left to do."""
    fill(swapstore, 3)
    options = ("recompress", "mena", "--compression", "zstd")
    seen = swapstore.on_a_terminal(*options, "--limit", "1").out.decode()
    assert seen.startswith("mena: stored 1 snapshot anew: 1.")
    assert seen.endswith("now; 2 left, run it again.\n")
    swapstore.inside(*options)
    assert swapstore.on_a_terminal(*options).out.decode() == "mena: nothing to store anew.\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--compression"),
        (("--compression", "gzip"), "none"),
        (("--compression", "zstd", "--limit", "0"), "limit"),
    ],
)
def test_wrong_options_are_refused(swapstore: Swapstore, options: tuple[str, ...], words: str) -> None:
    """A typo stores all history in a way that nobody asked for."""
    fill(swapstore, 1)
    done = swapstore.inside("recompress", "mena", *options)
    assert done.code == 2
    assert words in done.err
