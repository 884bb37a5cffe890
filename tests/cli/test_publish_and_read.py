"""A payload that the command publishes is read back byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Swapstore


def test_json_is_stored_and_printed_as_it_was_written(swapstore: Swapstore, tmp_path: Path) -> None:
    """A producer's number formats, key order and spaces would be changed on the way."""
    text = '{ "b": 1.50, "a": [1e3, "\\u00e9", "é"],\n "big": 12345678901234567890 }\n'.encode()
    file = tmp_path / "snapshot.json"
    file.write_bytes(text)
    commit = swapstore("publish", "mena", str(file)).json
    assert (commit["version"], commit["size"], commit["created"]) == (1, len(text), True)
    assert swapstore("latest", "mena").out == text
    assert swapstore("read", "mena", "--version", "1").out == text
    assert swapstore("read", "mena", "--id", commit["id"]).out == text


def test_json_without_a_newline_is_printed_without_one(swapstore: Swapstore) -> None:
    """The digest of what is printed would not be that of what was published."""
    assert swapstore.inside("publish", "mena", stdin=b'{"a": 1}').json["size"] == 8
    assert swapstore("latest", "mena").out == b'{"a": 1}'


def test_bytes_are_printed_exactly(swapstore: Swapstore) -> None:
    """An image or an archive would come back with a newline more, or as text."""
    payload = bytes(range(256)) * 9 + b"\r\n\0"
    assert swapstore("publish", "tiles", "-", "--codec", "bytes", stdin=payload).code == 0
    assert swapstore("latest", "tiles").out == payload


def test_megabytes_pass_whole_through_pipes(swapstore: Swapstore) -> None:
    """A large document would be cut where a pipe is full, and its reader would see half of it."""
    payload = b"[" + b",".join(b'{"n": %d, "s": "%s"}' % (n, b"x" * 50) for n in range(40_000)) + b"]"
    assert len(payload) > 2_500_000
    assert swapstore("publish", "big", stdin=payload, env={"PYTHONUNBUFFERED": "1"}).json["size"] == len(
        payload
    )
    assert swapstore("latest", "big", env={"PYTHONUNBUFFERED": "1"}).out == payload


def test_id_ts_and_labels_are_kept(swapstore: Swapstore) -> None:
    """Labels, id or the time of the data would be lost on the way from the command line."""
    options = ("--id", "a/1", "--ts", "2026-01-31T20:00:00+02:00", "--label", "k=v=w", "--label", "é=1")
    commit = swapstore.inside("publish", "mena", *options, stdin=b"{}").json
    assert (commit["id"], commit["ts"]) == ("a/1", 1_769_882_400_000)
    meta = swapstore.inside("latest", "mena", "--meta").json
    assert meta["labels"] == {"k": "v=w", "é": "1"}
    assert {key: meta[key] for key in ("dataset", "id", "version", "codec", "size")} == {
        "dataset": "mena",
        "id": "a/1",
        "version": 1,
        "codec": "json",
        "size": 2,
    }
    assert "raw" not in meta


def test_publishing_again_is_safe(swapstore: Swapstore) -> None:
    """A cron job that repeats its command after a failure would publish twice."""
    again = [swapstore.inside("publish", "mena", "--id", "one", stdin=b"{}").json for _ in range(2)]
    assert [commit["created"] for commit in again] == [True, False]
    keyed = [
        swapstore.inside("publish", "mena", "--dedupe-key", "6h:1", stdin=b"[%d]" % n).json for n in range(2)
    ]
    assert [commit["version"] for commit in keyed] == [2, 2]


@pytest.mark.parametrize(
    "moment",
    ["1700000001000", "2023-11-14T22:13:21Z", "2023-11-15 00:13:21.500+02:00"],
    ids=["ms", "iso", "space"],
)
def test_read_as_of_a_moment(swapstore: Swapstore, moment: str) -> None:
    """A reader that asks what was known at a time would get what was published later."""
    for ts in (1_700_000_001_000, 1_700_000_002_000):
        swapstore.inside("publish", "mena", "--ts", str(ts), stdin=b"%d" % ts)
    assert swapstore.inside("read", "mena", "--as-of", moment).out == b"1700000001000"


def test_options_of_every_command_stand_before_or_after_it(swapstore: Swapstore, tmp_path: Path) -> None:
    """`swapstore --namespace demo history mena`, which the demo suggests, would be a usage error."""
    other = f"sqlite:///{tmp_path}/other.db"
    swapstore.inside("--url", other, "publish", "mena", "--namespace", "apart", stdin=b"1")
    assert swapstore.inside("latest", "mena", "--url", other, "--namespace=apart").out == b"1"
    apart = swapstore("latest", "mena", "--url", other, env={"SWAPSTORE_NAMESPACE": "apart"})
    assert apart.out == b"1"
    assert swapstore.inside("latest", "mena", "--url", other).code == 1


def test_the_default_store_needs_no_address(swapstore: Swapstore) -> None:
    """The first command of a newcomer would fail, because there is no server."""
    assert swapstore("publish", "mena", stdin=b"1", env={"SWAPSTORE_URL": ""}).code == 0
    assert swapstore("latest", "mena", env={"SWAPSTORE_URL": ""}).out == b"1"
    assert not swapstore.path.exists()
