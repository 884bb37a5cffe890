"""Exit codes that scripts rely on, and the one line on stderr that gives the reason."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from swapstore import connect
from tests.cli.conftest import Done, Swapstore
from tests.support.valkey import Server


def failed(done: Done, code: int, *words: str) -> None:
    """One readable line on stderr, nothing on stdout, and this code."""
    assert (done.code, done.out) == (code, b""), done.err
    (line,) = done.err.splitlines()
    assert line.startswith("swapstore: ")
    for word in words:
        assert word in line


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    with connect(swapstore.url) as store:
        store.publish("mena", {"regime": "calm"}, id="one")
    return swapstore


def test_1_nothing_published(swapstore: Swapstore) -> None:
    """A script would take an empty store for an empty document."""
    failed(swapstore("latest", "mena"), 1, "'mena'", "nothing is published")
    for command in ("history", "status", "unpin", "confirm"):
        failed(swapstore.inside(command, "mena"), 1, "'mena'", "nothing is published")


def test_1_no_datasets(swapstore: Swapstore) -> None:
    """A script with the wrong namespace would go on as if there were nothing to do."""
    failed(swapstore.inside("datasets", "--namespace", "typo"), 1, "nothing is published", "typo")


def test_1_not_found(published: Swapstore) -> None:
    """A script that reads or pins a snapshot that is not there would go on with nothing."""
    failed(published("read", "mena", "--version", "9"), 1, "--version 9", "swapstore history mena")
    failed(published.inside("pin", "mena", "--id", "two"), 1, "'two'")


def test_1_not_published_yet_is_an_answer(swapstore: Swapstore) -> None:
    """A cron job skips its work, or mails a message every hour that all is well."""
    question = ("published", "mena", "--dedupe-key", "hourly:07")
    assert swapstore(*question) == Done(1, b"", "")
    done = swapstore.inside("publish", "mena", "--dedupe-key", "hourly:07", stdin=b"1").json
    asked = swapstore(*question)
    assert (asked.code, asked.json, asked.err) == (0, {**done, "created": False}, "")
    assert swapstore.inside("published", "mena", "--dedupe-key", "hourly:08") == Done(1, b"", "")


def test_4_and_5_are_no_answer_of_published(swapstore: Swapstore) -> None:
    """A store that is down, or a damaged one, looks like a run that is not published."""
    question = ("published", "mena", "--dedupe-key", "k-1")
    failed(swapstore(*question, "--patience", "0", env={"SWAPSTORE_URL": "redis://127.0.0.1:1/0"}), 4)
    with connect(swapstore.url) as store:
        for number in range(30):
            store.publish("mena", number, dedupe_key=f"k-{number}")
    with sqlite3.connect(swapstore.path) as file:
        assert file.execute("DELETE FROM records WHERE key LIKE '%:page:%'").rowcount
    file.close()
    failed(swapstore.inside(*question), 5, "'k-1' was published as version 2", "repair")


def test_3_refused(published: Swapstore) -> None:
    """A producer could not tell a conflict, which needs a decision, from a failure to retry."""
    failed(published("publish", "mena", "--id", "one", stdin=b"2"), 3, "'one'")
    failed(published("publish", "mena", "--expected-version", "9", stdin=b"2"), 3, "latest")


def test_4_unavailable(swapstore: Swapstore) -> None:
    """A server that is down would look like nothing published, and its password would be in the log."""
    done = swapstore(
        *("latest", "mena", "--patience", "0"), env={"SWAPSTORE_URL": "redis://user:s3cret@127.0.0.1:1/0"}
    )
    failed(done, 4, "127.0.0.1:1")
    assert "s3cret" not in done.err


def test_8_no_directory(swapstore: Swapstore, tmp_path: Path) -> None:
    """A script would try again for ever to write into a directory that does not exist."""
    failed(swapstore("latest", "mena", env={"SWAPSTORE_URL": f"sqlite:///{tmp_path}/none/store.db"}), 8)


def test_8_no_place_for_the_default_store(swapstore: Swapstore, tmp_path: Path) -> None:
    """A container without a writable home would get a traceback instead of advice."""
    (tmp_path / "data").write_text("a file, where a directory should be")
    failed(swapstore("latest", "mena", env={"SWAPSTORE_URL": ""}), 8, "$SWAPSTORE_URL")


def test_4_a_full_store_says_so(swapstore: Swapstore, valkey: Server) -> None:
    """A monitor takes a full server for one that is down, and waits until it comes back."""
    with valkey.client() as client:
        client.config_set("maxmemory", 1)
        try:
            done = swapstore.inside("publish", "mena", "--url", valkey.url, stdin=b"1")
        finally:
            client.config_set("maxmemory", 0)
    assert done.code == 4
    assert "is full" in done.err.splitlines()[-1]


def test_5_corrupt(published: Swapstore) -> None:
    """Altered bytes would be served as data, or look like nothing published."""
    with sqlite3.connect(published.path) as file:
        changed = file.execute(
            "UPDATE records SET value = CAST(replace(CAST(value AS TEXT), 'calm', 'grim') AS BLOB) "
            "WHERE key LIKE '%:id:%'"
        )
        assert changed.rowcount == 1
    file.close()
    failed(published("latest", "mena"), 5, "'mena'", ":one were altered")


BAD_USAGE = [
    ["latest"],
    ["nonsense"],
    ["latest", "mena", "europe"],
    ["latest", "mena", "--urll", "x"],
    ["latest", "mena", "--url"],
    ["latest", "mena", "--url", ""],
    ["latest", "mena", "--url", "mongodb://h"],
    ["latest", "me na"],
    ["latest", "mena", "--namespace", "{x}"],
    ["publish", "mena", "--labl", "a=b"],
    ["publish", "mena", "no-such-file.json"],
    ["publish", "mena", "."],
    ["publish", "mena", "--codec", "pickle"],
    ["publish", "mena", "--label", "novalue"],
    ["publish", "mena", "--label", "a=1", "--label", "a=2"],
    ["publish", "mena", "--ts", "yesterday"],
    ["publish", "mena", "--ts", "2026-01-31T18:00:00"],
    ["publish", "mena", "--ts", "9" * 18],
    ["publish", "mena", "--ts", "9" * 5000],
    ["publish", "mena", "--expected-version", "1.6"],
    ["publish", "mena", "--id", "a b"],
    ["read", "mena"],
    ["read", "mena", "--id", "a", "--version", "1"],
    ["read", "mena", "--version", "1.6"],
    ["read", "mena", "--version", "0"],
    ["read", "mena", "--version"],
    ["history", "mena", "--limit", "-1"],
    ["history", "mena", "--label", "novalue"],
    ["history", "mena", "--since", "2026-01-31T18:00:00"],
    ["history", "mena", "--since", "2026-02-01T00:00:00Z", "--until", "2026-01-01T00:00:00Z"],
    ["published", "mena"],
    ["published", "mena", "--dedupe-key", "a b"],
    ["pin", "mena"],
    ["demo", "mena"],
]


@pytest.mark.parametrize("arguments", BAD_USAGE, ids=lambda arguments: " ".join(arguments)[:60])
def test_2_bad_usage(swapstore: Swapstore, arguments: list[str]) -> None:
    """A typo would look like an answer, or publish something by mistake."""
    failed(swapstore.inside(*arguments, stdin=b"{}"), 2)
    with connect(swapstore.url) as store:
        assert store.datasets() == []


def test_2_a_time_without_offset(swapstore: Swapstore) -> None:
    """A time without an offset would be misread by hours."""
    for command, option in (("publish", "--ts"), ("read", "--as-of")):
        done = swapstore.inside(command, "mena", option, "2026-01-31T18:00:00", stdin=b"{}")
        failed(done, 2, option, "with an offset (2026-01-31T18:00:00Z, in UTC)")


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b'{"a": Infinity}', b"\xff", b"\xef\xbb\xbf{}"])
def test_2_bad_json(swapstore: Swapstore, text: bytes) -> None:
    """A producer that dies halfway down the pipe would publish half a document."""
    failed(swapstore.inside("publish", "mena", stdin=text), 2, "the text")
    assert swapstore.inside("latest", "mena").code == 1


def test_2_too_much(swapstore: Swapstore) -> None:
    """A pipe that never ends would take all memory before it is refused."""
    failed(swapstore("publish", "mena", "/dev/zero", "--codec", "bytes"), 2, "67,108,864")


def test_2_no_command(swapstore: Swapstore) -> None:
    """A script whose command is an empty variable would succeed; a newcomer would get no help."""
    done = swapstore()
    assert done.code == 2
    assert b"Commands" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["latest", "mena", "--url", "redis://:s3cret@127.0.0.1:1"],
        ["latest", "mena", "--url", "redis://127.0.0.1:1?password=s3cret"],
        ["latest", "mena", "--url", "redis://:s3cret and@more@h:port"],
        ["latest", "mena", "--url", "http://u:s3cret@h"],
        ["latest", "mena", "redis://:s3cret@h"],
        ["latest", "mena", "redis://h?password=s3cret"],
        ["latest", "redis://u:s3cret@h/0"],
        ["redis://u:s3cret@h/0"],
    ],
    ids=" ".join,
)
def test_no_password_is_printed(swapstore: Swapstore, arguments: list[str]) -> None:
    """A password from an address would be in the log of a cron job."""
    done = swapstore.inside("--patience=0", *arguments)
    failed(done, 4 if "127.0.0.1" in arguments[-1] else 2)
    assert "s3cret" not in done.err


@pytest.mark.parametrize("module", ["cyclopts", "rich"])
def test_2_without_the_extra(swapstore: Swapstore, module: str) -> None:
    """A user without the extra would get a traceback instead of the command that installs it."""
    code = f"import sys; sys.modules[{module!r}] = None; from swapstore.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, env=swapstore.env, check=False
    )
    failed(Done(done.returncode, done.stdout, done.stderr.decode()), 2, "pip install 'swapstore[cli]'")


def test_70_a_defect(swapstore: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of swapstore would exit with 1, and a script would read: nothing published."""
    monkeypatch.setattr("swapstore.connect", lambda *_, **__: 1 / 0)
    done = swapstore.inside("latest", "mena")
    assert done.code == 70
    assert "ZeroDivisionError" in done.err


def test_9_published_on_too_few_replicas(swapstore: Swapstore, valkey: Server) -> None:
    """A script publishes anew what is published, or learns no id to wait again with."""
    env = {"SWAPSTORE_URL": valkey.url}
    done = swapstore("publish", "mena", "--id", "one", "--replicas", "1", "--wait", "1s", stdin=b"1", env=env)
    assert done.code == 9
    assert (done.json["id"], done.json["version"], done.json["replicas"]) == ("one", 1, 0)
    assert "'one', is published, but 0 of 1 replicas had it within 1 s" in done.err
    assert swapstore("latest", "mena", env=env).out == b"1"


def test_8_and_2_a_durability_that_cannot_be_had(swapstore: Swapstore) -> None:
    """A producer on SQLite believes that a replica has its commits."""
    failed(swapstore("publish", "mena", "--replicas", "1", stdin=b"1"), 8, "no replicas")
    failed(swapstore("publish", "mena", "--fsync", stdin=b"1"), 8, "no replicas")
    failed(swapstore("publish", "mena", "--wait", "1s", stdin=b"1"), 2, "--replicas or --fsync")
    failed(swapstore("publish", "mena", "--replicas", "0", stdin=b"1"), 2, "asks for nothing")
    assert "replicas" not in swapstore("publish", "mena", stdin=b"1").json
