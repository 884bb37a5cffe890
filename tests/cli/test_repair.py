"""`swapstore repair`: no write without --apply, and what is printed for scripts and for people."""

from __future__ import annotations

import pytest

from swapstore import Store, connect
from swapstore.errors import Contended, InvalidInput, StoreClosed
from tests.cli.conftest import Swapstore
from tests.cli.spoiled import DEEP, delete, published, put, spoil
from tests.support import invariants


def contents(swapstore: Swapstore) -> invariants.Contents:
    with connect(swapstore.url) as store:
        return invariants.contents(store)


# --- for scripts -----------------------------------------------------------------------------------


def test_nothing_wrong(published: Swapstore) -> None:
    """A nightly repair would report damage every morning, or commit without need."""
    before = contents(published)
    for options in ((), ("--apply",), ("mena",), ("mena", "--apply")):
        done = published.inside("repair", *options)
        assert (done.code, done.out, done.err) == (0, b"", "")
    assert contents(published) == before


def test_without_apply_nothing_changes(published: Swapstore) -> None:
    """A dry run would drop a row of the history."""
    delete(published, ":id:{mena}:id-40")
    before = contents(published)
    done = published("repair", "mena")
    report = done.json
    outcome = ["findings", "dropped", "restored", "left", "version", "pin_unknown"]
    assert list(report) == ["dataset", "applied", *outcome]
    assert (report["applied"], report["dropped"], report["left"]) == (False, ["id-40"], [])
    assert [finding["problem"] for finding in report["findings"]] == ["record-missing"]
    assert done.code == 5
    (line,) = done.err.splitlines()
    assert line.startswith("swapstore: nothing is changed yet")
    assert line.endswith("swapstore repair mena --apply")
    assert contents(published) == before


def test_apply_repairs(published: Swapstore) -> None:
    """A repair would not do what the dry run announced, or its exit code would deny it."""
    delete(published, ":id:{mena}:id-40", ":id:{europe}:one", ":manifest:{mena}")
    with connect(published.url) as store:
        store.publish("europe", 2, id="two")
    done = published("repair", "--apply")
    europe, mena = done.lines
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert "dataset 'mena': its manifest is rebuilt from records, which do not tell of a pin" in done.err
    assert (europe["pin_unknown"], mena["pin_unknown"]) == (False, True)
    assert (europe["dataset"], europe["dropped"], europe["restored"]) == ("europe", ["one"], [])
    assert (mena["dataset"], mena["dropped"], len(mena["restored"])) == ("mena", [], DEEP - 1)
    assert mena["version"] == published.inside("status", "mena").json["version"]
    assert published.inside("verify").code == 0
    assert len(published.inside("history", "mena").lines) == DEEP - 1
    assert published.inside("repair", "--apply").out == b""


def test_one_dataset_alone(published: Swapstore) -> None:
    """Repairing one dataset would change another one too."""
    delete(published, ":ts:{mena}:5:id-4", ":ts:{europe}:%")
    assert [report["dataset"] for report in published.inside("repair", "mena", "--apply").lines] == ["mena"]
    assert published.inside("verify").json["dataset"] == "europe"


def test_what_is_left_is_reported(published: Swapstore) -> None:
    """A snapshot that cannot be dropped, because it is the only one, would look repaired."""
    delete(published, ":id:{europe}:one")
    for options in ((), ("--apply",)):
        done = published.inside("repair", *options)
        assert done.code == 5
        assert [finding["id"] for finding in done.json["left"]] == ["one"]
        assert done.err == "swapstore: 1 thing is wrong and cannot be repaired\n"
    published.inside("publish", "europe", "--id", "two", stdin=b"2")
    assert published.inside("repair", "--apply").json["dropped"] == ["one"]
    assert published.inside("verify").code == 0


def test_nothing_published_is_exit_code_1(published: Swapstore) -> None:
    """A typo in the name would look like a sound dataset."""
    assert "'nowhere'" in published.inside("repair", "nowhere").err
    assert published.inside("repair", "nowhere", "--apply").code == 1
    assert published.inside("repair", "--namespace", "typo").code == 1


def test_each_report_is_printed_at_once(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the second dataset would hide which snapshots were dropped from the first."""
    delete(published, ":id:{mena}:id-40", ":ts:{europe}:%")
    real = Store.repair

    def repair(store: Store, dataset: str | None = None, *, apply: bool = False) -> object:
        if dataset == "mena":
            raise Contended("somebody else repairs it")
        return real(store, dataset, apply=apply)

    monkeypatch.setattr(Store, "repair", repair)
    done = published.inside("repair", "--apply")
    assert (done.code, done.json["dataset"]) == (4, "europe")


# --- for people ------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_person_reads_what_would_be_done(published: Swapstore, columns: int) -> None:
    """A person would have to read JSON to know what --apply would do."""
    spoil(published, "DELETE FROM records WHERE key LIKE '%:page:{mena}:%'")
    delete(published, ":id:{mena}:id-70")
    done = published.on_a_terminal("repair", "mena", columns=columns)
    lines = done.out.decode().splitlines()
    assert done.code == 5
    assert all(len(line) <= columns for line in lines)
    assert lines[0] == "mena: 66 things are wrong"
    assert "1 snapshot would be dropped, because its payload is gone:" in lines
    assert "64 snapshots would be restored to the manifest:" in lines
    assert [line for line in lines if line in {"  id-70", "  id-9", "  id-10"}] == ["  id-70", "  id-9"]
    assert "  and 54 more; with --json all are printed." in lines
    assert lines[-2:] == ["Nothing is changed yet. To do it:", "  swapstore repair mena --apply"]


def test_a_person_reads_what_was_done(published: Swapstore) -> None:
    """After a repair a person would not know whether anything is left to do."""
    delete(published, ":id:{mena}:id-40", ":id:{mena}:id-41", ":id:{europe}:one")
    done = published.on_a_terminal("repair", "--apply")
    lines = done.out.decode().splitlines()
    assert done.code == 5
    assert "mena: 2 things were wrong" in lines
    assert "2 snapshots dropped, because their payload is gone:" in lines
    assert "could not be repaired:" in lines
    assert "1 thing is left. If the dataset has no readable snapshot any more," in lines
    published.inside("publish", "europe", stdin=b"2")
    done = published.on_a_terminal("repair", "--apply")
    assert (done.code, done.out.decode().splitlines()[-1]) == (0, "all is repaired")
    done = published.on_a_terminal("repair", "europe")
    assert (done.code, done.out.decode()) == (0, "nothing is wrong\n")


def test_the_command_to_copy_does_it(published: Swapstore) -> None:
    """The printed command would repair another store, or nothing."""
    put(published, "swapstore:id:{mena}:leaked")
    seen = published.on_a_terminal("repair", "--url", published.url).out.decode()
    hint = seen.splitlines()[-1].split()
    assert hint == ["swapstore", "--url", published.url, "repair", "--apply"]
    assert published.inside(*hint[1:]).code == 0
    assert published.inside("verify").json["problem"] == "orphan"


# --- in Python -------------------------------------------------------------------------------------


def test_repair_checks_its_arguments(published: Swapstore) -> None:
    """A wrong name would look like a sound dataset, and a closed store like an empty one."""
    with connect(published.url) as store, pytest.raises(InvalidInput):
        store.repair("no such name", apply=True)
    for dataset in ("mena", None):
        with pytest.raises(StoreClosed):
            store.repair(dataset)


def test_repair_of_everything_reports_what_was_wrong(published: Swapstore) -> None:
    """A program that repairs all would have to know the names of what is damaged."""
    delete(published, ":ts:{europe}:%")
    with connect(published.url) as store:
        for apply in (False, True):
            (report,) = store.repair(apply=apply)
            assert (report.dataset, report.applied, report.left) == ("europe", apply, ())
        assert store.repair(apply=True) == []


__all__ = ["published"]
