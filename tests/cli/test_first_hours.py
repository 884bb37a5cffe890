"""What a newcomer types, and the answer that helps: hints, the default store, completion, examples."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from swapstore import connect
from swapstore.cli import output
from tests.cli.conftest import COMMAND, Done, Swapstore
from tests.cli.test_help import COMMANDS

UNNAMED = {"SWAPSTORE_URL": "", "UPSTASH_REDIS_REST_URL": ""}


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    with connect(swapstore.url) as store:
        for number in (1, 2, 3):
            store.publish("mena", number, id=f"id-{number}")
    return swapstore


def said(done: Done, code: int = 0) -> str:
    assert done.code == code, done.err
    (line,) = done.err.splitlines()
    return line


# --- the store that nobody named -----------------------------------------------------------------------


def test_a_publish_to_the_default_store_says_where_it_went(swapstore: Swapstore, tmp_path: Path) -> None:
    """A cron job, which has no environment, publishes for weeks into a file that nobody looks at."""
    line = said(swapstore("publish", "mena", stdin=b"1", env=UNNAMED))
    assert f"{tmp_path}/data/swapstore/swapstore.db" in line
    assert "neither --url nor $SWAPSTORE_URL names one" in line
    assert "is set" not in line
    misspelt = said(
        swapstore("publish", "mena", stdin=b"1", env={**UNNAMED, "SWAPSTORE_URI": "redis://:s3cret@h"})
    )
    assert "($SWAPSTORE_URI is set: is it misspelt?)" in misspelt
    assert "s3cret" not in misspelt
    assert "default store" in said(swapstore("confirm", "mena", env=UNNAMED))
    reading = swapstore("latest", "mena", env=UNNAMED)
    assert (reading.out, reading.err) == (b"1", "")


def test_a_publish_to_a_named_store_is_as_quiet_as_before(swapstore: Swapstore) -> None:
    """Every run of a cron job sends a mail. A person at a terminal is told where the snapshot went."""
    assert swapstore("publish", "mena", stdin=b"1").err == ""
    named = swapstore("publish", "mena", "--url", swapstore.url, stdin=b"1", env=UNNAMED)
    assert (named.code, named.err) == (0, "")
    file = swapstore.path.with_name("value.json")
    file.write_text("1")
    seen = swapstore.on_a_terminal("publish", "mena", str(file)).out.decode()
    assert str(swapstore.path) in "".join(seen.split())


# --- addresses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("localhost:6379", "redis://localhost:6379"),
        ("localhost:6379/0", "redis://localhost:6379/0"),
        ("cache.internal:6380", "redis://cache.internal:6380"),
        ("localhost", "redis://localhost"),
        ("127.0.0.1", "redis://127.0.0.1"),
        (":memory:", "swapstore.testing.SimulatedStore"),
        ("sqlite:///:memory:", "swapstore.testing.SimulatedStore"),
        ("sqlite://:memory:", "swapstore.testing.SimulatedStore"),
        ("sqlite://x.db", "sqlite:///x.db"),
        ("x.db", "sqlite:///x.db"),
        ("/data/x.db", "sqlite:////data/x.db"),
        ("sqlite:///x.db\n", "line break"),
        (" redis://localhost", "space"),
    ],
)
def test_an_address_that_is_nearly_right(swapstore: Swapstore, address: str, hint: str) -> None:
    """A newcomer has to look the form of the address up, or another file is made than the one meant."""
    assert hint in said(swapstore.inside("datasets", "--url", address), 2)
    assert list(swapstore.path.parent.glob("x.db*")) == []


@pytest.mark.parametrize(
    ("address", "source"), [("ftp://u:s3cret@h", "unknown kind"), ("redis://:s3@cret#x@h/0", "malformed")]
)
def test_a_bad_address_says_where_it_came_from(
    swapstore: Swapstore, monkeypatch: pytest.MonkeyPatch, address: str, source: str
) -> None:
    """A person corrects the address on the command line, and the one in the environment was used."""
    given = said(swapstore.inside("datasets", "--url", address), 2)
    assert given.startswith("swapstore: --url cannot be used: ")
    swapstore.url = address
    found = said(swapstore.inside("datasets"), 2)
    assert found.startswith("swapstore: $SWAPSTORE_URL cannot be used: ")
    source_named = said(swapstore.inside("import", "snapshots", "--from", address), 2)
    assert source_named.startswith("swapstore: --from cannot be used: ")
    monkeypatch.setenv("SWAPSTORE_IMPORT_FROM", address)
    assert "swapstore: $SWAPSTORE_IMPORT_FROM cannot" in said(swapstore.inside("import", "snapshots"), 2)
    for line in (given, found, source_named):
        assert "cret" not in line
    assert source in given
    assert "namespace 'a b' is not allowed" in said(
        swapstore.inside("datasets", "--url", "sqlite:///x.db", "--namespace", "a b"), 2
    ).removeprefix("swapstore: ")


def test_the_port_of_redis_behind_http(swapstore: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer looks for the token of a server that has none."""
    monkeypatch.delenv("UPSTASH_REDIS_REST_TOKEN", raising=False)
    line = said(swapstore.inside("datasets", "--url", "http://localhost:6379"), 2)
    assert "write redis://localhost:6379" in line
    line = said(swapstore.inside("datasets", "--url", "http://localhost:8079"), 2)
    assert "redis://" not in line


# --- commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["pin", "rollback"])
def test_a_snapshot_is_chosen_by_its_version(published: Swapstore, command: str) -> None:
    """An operator in a hurry has to find the id of version 1 before it can be served again."""
    done = published.inside(command, "mena", "--version", "1")
    assert done.json["serving"]["id"] == "id-1"
    assert "version 9" in said(published.inside(command, "mena", "--version", "9"), 1)
    for arguments in ((), ("--version", "1", "--id", "id-1")):
        assert "--id and --version" in said(published.inside(command, "mena", *arguments), 2)


def test_what_is_not_found_is_looked_for_in_a_place_that_is_named(published: Swapstore) -> None:
    """A person looks for the fault in the name of the dataset, and it is in the address or the namespace."""
    place = f"in sqlite {published.path}, namespace 'swapstore'"
    for text in (
        *("latest nema", "history nema", "status nema", "verify nema", "confirm nema", "unpin nema"),
        *("pin nema --version 1", "rollback nema --id id-1", "prune nema --max-count 1"),
    ):
        assert f"dataset 'nema': nothing is published {place}" in said(published.inside(*text.split()), 1)
    for text in ("pin mena --version 9", "rollback mena --id id-9", "read mena --version 9"):
        line = said(published.inside(*text.split()), 1)
        assert line.startswith("swapstore: dataset 'mena': no ")
        assert place in line
        assert "history" in line


@pytest.mark.parametrize("command", ["latest", "status", "history", "datasets", "verify"])
def test_a_misspelt_path_is_named_and_not_created(swapstore: Swapstore, command: str) -> None:
    """A typo makes an empty store, and the message does not tell it from a store without this dataset."""
    words = (command,) if command == "datasets" else (command, "mena")
    line = said(swapstore.inside(*words), 1)
    assert line.endswith(f"sqlite {swapstore.path}, namespace 'swapstore'; that file does not exist")
    assert not swapstore.path.exists()


def test_a_time_before_the_history_says_where_it_begins(swapstore: Swapstore) -> None:
    """A person who asks for a time before the first snapshot guesses which times there are."""
    with connect(swapstore.url) as store:
        for day in (2, 1, 3):
            store.publish("mena", day, ts=datetime(2026, 1, day, tzinfo=UTC))
    line = said(swapstore.inside("read", "mena", "--as-of", "2025-12-31T00:00:00Z"), 1)
    assert "no snapshot matches --as-of 2025-12-31T00:00:00+00:00 in sqlite" in line
    assert "the history begins at 2026-01-01T00:00:00Z, with version 2" in line
    assert "begins" not in said(swapstore.inside("read", "mena", "--version", "9"), 1)


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_no_history_is_not_a_history(published: Swapstore, limit: str) -> None:
    """A script that computes its limit prints nothing, and ends well."""
    assert f"--limit must be 1 or more, not {limit}" in said(
        published.inside("history", "mena", f"--limit={limit}"), 2
    )
    assert b" id, labels " in published.on_a_terminal("history", "mena", "--limit", "1").out
    empty = published.on_a_terminal("history", "mena", "--before", "1").out.decode()
    assert "no snapshot to list; the newest is version 3" in empty


def test_an_example_of_an_address_is_shown_and_an_address_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """The line that says how to give a password is printed without it, or with a real one."""
    for line, seen in (
        ("redis://h:1/0 needs it; write redis://:PASSWORD@h:1/0", None),
        ("malformed: write redis://USER:PASSWORD@host:6379/0, or so", None),
        ("redis://:s3cret@h/0; write redis://:PASSWORD@h/0", "redis://…@h/0; write redis://:PASSWORD@h/0"),
        ("redis://:PASSWORD@s3cret@h/0", "redis://…@h/0"),
    ):
        output.complain(line)
        assert capsys.readouterr().err == f"swapstore: {seen or line}\n"


def test_prune_without_a_bound_shows_one(published: Swapstore) -> None:
    """A newcomer learns neither what a bound looks like, nor whether something was deleted."""
    line = said(published.inside("prune", "mena"), 2)
    assert "--max-count 30" in line
    assert "Nothing was pruned" in line


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("2026-01-01", "(2026-01-01T00:00:00Z, in UTC, its beginning)"),
        ("2026-01-01T07:30", "(2026-01-01T07:30:00Z, in UTC)"),
        ("today", "(2026-01-31T18:00:00Z)"),
    ],
)
def test_a_date_for_a_time_shows_what_to_write(published: Swapstore, given: str, hint: str) -> None:
    """A newcomer looks up what an offset is, and guesses which end of a day is meant."""
    assert hint in said(published.inside("read", "mena", "--as-of", given), 2)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"{", "line 1, column 2"),
        (b'{\n "a": 1,\n "b": x}', "line 3, column 7"),
        (b'{\n "a": 1,\n', "line 3, column 1"),
        ('{"é":\n "ü" x}'.encode(), "line 2, column 6"),
        (b'{\n"a":NaN}', "line 2, column 5"),
        (b'{"a":"\xff"}', "line 1, column 7: byte 0xff is not UTF-8"),
        (b"[1]\n]", "line 2, column 1"),
    ],
)
def test_text_that_is_not_json_is_told_by_line_and_column(
    swapstore: Swapstore, text: bytes, place: str
) -> None:
    """Whoever wrote the file by hand counts bytes to find the fault."""
    line = said(swapstore.inside("publish", "mena", stdin=text), 2)
    assert place in line
    assert "Nothing was published." in line


def test_a_file_that_is_not_there_is_not_published(swapstore: Swapstore) -> None:
    """A producer that reads the error asks itself what readers see now."""
    line = said(swapstore.inside("publish", "mena", "none.json"), 2)
    assert line == "swapstore: cannot read 'none.json': No such file or directory. Nothing was published."


def test_an_empty_pipe_is_not_published(swapstore: Swapstore, tmp_path: Path) -> None:
    """A command that failed at the other end of the pipe replaces the data by nothing."""
    assert "stdin is empty" in said(swapstore.inside("publish", "mena", "--codec", "bytes"), 2)
    assert swapstore.inside("latest", "mena").code == 1
    empty = tmp_path / "empty"
    empty.touch()
    assert swapstore.inside("publish", "mena", str(empty), "--codec", "bytes").json["size"] == 0


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "import"])
def test_the_help_of_every_command_has_an_example(swapstore: Swapstore, name: str) -> None:
    """A newcomer puts a command line together from a table of options."""
    text = swapstore.inside(name, "--help").out.decode().replace('eval "$(swapstore', "swapstore")
    assert f"\n  swapstore {name}" in text
    assert "| swapstore" not in text  # a pipe ends in the same way whether the computation finished or died


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(swapstore: Swapstore) -> None:
    """The Tab key does nothing, or the script that should change this does not load."""
    script = f"""
      eval "$({" ".join(COMMAND)} completion bash)"
      COMP_WORDS=(swapstore rollb); COMP_CWORD=1; _swapstore; echo "${{COMPREPLY[@]}}"
      COMP_WORDS=(swapstore pin mena --ver); COMP_CWORD=3; _swapstore; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=swapstore.env, check=True)
    assert done.stdout.split() == [b"rollback", b"--version"]
    for shell in ("zsh", "fish"):
        assert b"rollback" in swapstore.inside("completion", shell).out
