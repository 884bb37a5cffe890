"""Makes docs/reference/vectors/*.json: stored bytes, and what each reader must answer.

    python -m tests.interop.vectors

The clock and the randomness are those of a simulation, so two runs make the same files with one version of
zstd. With another one the frames may differ: `comparable` leaves out what may.
"""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from swapstore import Retention
from swapstore.codecs import Codec
from swapstore.format import encodings
from swapstore.format.encodings import Dictionary
from swapstore.models import Compression
from swapstore.protocol.context import Policy
from swapstore.testing.simulated import SimulatedStore

DIRECTORY = Path(__file__).parents[2] / "docs" / "reference" / "vectors"
DATASET = "mena"
MANIFEST = f"swapstore:manifest:{{{DATASET}}}"
START_MS = 1_769_860_800_000
HOUR_MS = 3_600_000
GIGABYTES = 4 << 30
READ = {"manifest", "id", "page", "base", "member"}  # the kinds of keys that readers use

Json = dict[str, Any]
Keys = dict[str, bytes]


def key(kind: str, rest: str) -> str:
    return f"swapstore:{kind}:{{{DATASET}}}:{rest}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class World:
    """A simulated store, and what was published to it."""

    def __init__(self, compression: Compression = "none", *, text_only: bool = False) -> None:
        self.store = SimulatedStore(seed=2026)
        self.store.clock.ms = START_MS
        self.rows: list[Json] = []  # oldest first
        self.payloads: dict[str, bytes] = {}  # by id; of a group, its table
        self.members: dict[str, dict[str, bytes]] = {}  # of groups, by id
        self.first_version, self.floor = 1, 0
        self.pinned: Json | None = None
        self.use(compression, text_only=text_only)

    def use(self, compression: Compression, *, text_only: bool = False) -> None:
        """Go on with a producer that has these settings."""
        self.store._policy = Policy(compression=compression, text_only=text_only)
        self.client = self.store.connect()

    def publish(self, payload: bytes, *, ts: int | None = None, **options: Any) -> None:
        """Publish a payload an hour after the one before."""
        self.store.clock.advance(HOUR_MS)
        id = f"report-{len(self.rows) + 1}"  # noqa: A001
        now = self.store.clock.now_ms()
        given = payload if options.get("codec") == "bytes" else msgspec.Raw(payload)
        commit = self.client.publish(DATASET, given, id=id, ts=now if ts is None else ts, **options)
        self.payloads[id] = payload
        self.rows.append(
            {
                "version": commit.version,
                "id": id,
                "ts": commit.ts,
                "committed_at": now,
                "size": len(payload),
                "sha256": sha256(payload),
                "codec": options.get("codec", "json"),
                "labels": options.get("labels", {}),
                "dedupe_key": options.get("dedupe_key"),
            }
        )

    def publish_group(self, members: dict[str, bytes], *, codec: Codec = "json") -> None:
        """Publish members an hour after the snapshot before."""
        self.store.clock.advance(HOUR_MS)
        id = f"report-{len(self.rows) + 1}"  # noqa: A001
        now = self.store.clock.now_ms()
        given = {name: msgspec.Raw(each) if codec == "json" else each for name, each in members.items()}
        commit = self.client.publish_group(DATASET, given, id=id, ts=now, codec=codec)
        own = [] if codec == "json" else [codec]
        listed = {name: [len(members[name]), sha256(members[name]), *own] for name in sorted(members)}
        table = json.dumps(listed, separators=(",", ":")).encode()
        self.payloads[id], self.members[id] = table, members
        fields = {"size": len(table), "sha256": sha256(table), "codec": "group"}
        known = {"version": commit.version, "id": id, "ts": now, "committed_at": now}
        self.rows.append({**known, **fields, "labels": {}, "dedupe_key": None})

    def pin(self, version: int) -> None:
        self.client.pin(DATASET, version=version)
        self.pinned = self.row(version)

    def prune(self, retention: Retention) -> None:
        pruned = self.client.prune(DATASET, retention=retention)
        self.first_version, self.floor = pruned.first_version, pruned.floor

    def row(self, version: int) -> Json:
        return next(row for row in self.rows if row["version"] == version)

    @property
    def keys(self) -> Keys:
        """What is stored now, expiring records included."""
        self.store.keyspace.expire(self.store.clock.now_ms())
        return {name: value.data for name, value in self.store.keyspace.values.items()}

    @property
    def served(self) -> Json:
        return self.pinned or max(self.rows, key=_by_time)

    @property
    def history(self) -> list[Json]:
        """The rows that are not hidden, newest first."""
        shown = [row for row in self.rows if row["version"] >= self.first_version and row["ts"] >= self.floor]
        return shown[::-1]

    @property
    def readable(self) -> list[Json]:
        """The rows that can be read: those of the history, and what is latest or pinned."""
        return [*self.history, max(self.rows, key=_by_time), *([self.pinned] if self.pinned else [])]

    def as_of(self, ts: int) -> Json | None:
        return max((row for row in self.readable if row["ts"] <= ts), key=_by_time, default=None)

    def version(self, version: int) -> Json | None:
        return next((row for row in self.readable if row["version"] == version), None)

    def answer(self, row: Json | None) -> Json | None:
        if row is None:
            return None
        snapshot = {name: value for name, value in row.items() if name != "dedupe_key"}
        return {"row": snapshot, "payload": base64.b64encode(self.payloads[row["id"]]).decode()}

    def members_of(self, row: Json, names: list[str] | None = None) -> Json:
        """The members of a group, or those of these names."""
        members = self.members[row["id"]]
        return {name: base64.b64encode(members[name]).decode() for name in names or members}


def _by_time(row: Json) -> tuple[int, int]:
    return row["ts"], row["version"]


def vector(
    about: str,
    world: World,
    keys: Keys | None = None,
    *,
    times: tuple[int, ...] = (),
    versions: tuple[int, ...] = (),
) -> Json:
    """A store in which all that is asked can be read."""
    as_of = [{"ts": ts, "answer": world.answer(world.as_of(ts))} for ts in times]
    by_version = [{"version": each, "answer": world.answer(world.version(each))} for each in versions]
    return {
        "about": about,
        "dataset": DATASET,
        "keys": _shown(world.keys if keys is None else keys),
        "latest": world.answer(world.served),
        "history": world.history,
        "as_of": as_of,
        "versions": by_version,
    }


def group_vector(about: str, world: World, *asked: list[str]) -> Json:
    """A store that serves a group. `asked`: names of members that are read without the others."""
    made = vector(about, world, versions=tuple(row["version"] for row in world.rows))
    answers = [{"names": names, "answer": world.members_of(world.served, names)} for names in asked]
    unknown = {"names": ["EG", "ZZ"], "answer": {"error": "no_member"}}
    return made | {"group": world.members_of(world.served), "members": [*answers, unknown]}


def damaged_group(about: str, error: str, keys: Keys, *names: str) -> Json:
    """A store whose group cannot be read, nor these members by themselves."""
    asked = [{"names": [name], "answer": {"error": error}} for name in names]
    shown = {"about": about, "dataset": DATASET, "keys": _shown(keys)}
    return shown | {"group": {"error": error}, "members": asked}


def damaged(about: str, error: str, keys: Keys) -> Json:
    """A store whose latest snapshot cannot be read."""
    return {"about": about, "dataset": DATASET, "keys": _shown(keys), "latest": {"error": error}}


def _shown(keys: Keys) -> dict[str, str]:
    """The keys that readers use, in base64."""
    used = {name: data for name, data in keys.items() if name.split(":")[1] in READ}
    return {name: base64.b64encode(data).decode() for name, data in sorted(used.items())}


# --- what is stored --------------------------------------------------------------------------------


def report(number: int) -> bytes:
    """JSON of 1 KB, in which each number changes a few values."""
    zones = [{"zone": sha256(b"%d" % each)[:20], "price": 40 + (each * number) % 5} for each in range(25)]
    return json.dumps({"run": number, "régime": "calm", "zones": zones}, ensure_ascii=False).encode()


def other_report(number: int) -> bytes:
    """What has nothing in common with `report`."""
    digits = [sha256(b"%d" % each) for each in range(30)]
    return json.dumps({"run": number, "digests": digits}).encode()


BINARY = bytes(range(256)) * 3
TEXT = '{ "kept": 1.00, "big": 12345678901234567890, "text": "é\\n\\u0000 �" }\n'.encode()


def plain() -> Json:
    world = World()
    world.publish(TEXT, labels={"trigger": "hourly", "10": "x", "é": "\n"}, dedupe_key="run-1")
    world.publish(b"", codec="bytes")
    world.publish(BINARY, codec="bytes", labels={"trigger": "hourly"})
    world.publish(b"[]", ts=START_MS + HOUR_MS)  # older than the latest, as old as the first
    times = (0, START_MS, START_MS + HOUR_MS, START_MS + 2 * HOUR_MS, START_MS + 9 * HOUR_MS)
    about = "Payloads as they are: text, bytes, no bytes, labels, a dedupe key, and one that is dated back."
    return vector(about, world, times=times, versions=(1, 2, 3, 4, 5))


def nothing() -> Json:
    empty = {"latest": None, "history": [], "as_of": [{"ts": START_MS, "answer": None}]}
    by_version = [{"version": 1, "answer": None}]
    return {"about": "Nothing is published.", "dataset": DATASET, "keys": {}, **empty, "versions": by_version}


def as_base64() -> Json:
    world = World(text_only=True)
    world.publish(TEXT)
    world.publish(BINARY, codec="bytes")
    return vector("What is not text, published over REST: base64.", world, versions=(1, 2))


def zstd() -> Json:
    world = World("zstd")
    world.publish(report(1))
    world.publish(b"{}")  # does not get smaller
    world.publish(BINARY * 3, codec="bytes")
    return vector(
        "zstd without a base. What does not get smaller is stored as it is.", world, versions=(1, 2, 3)
    )


def zstd_as_base64() -> Json:
    world = World("zstd", text_only=True)
    world.publish(report(1))
    return vector("zstd, published over REST: zstd+base64.", world)


def delta() -> Json:
    world = World("delta")
    for number in range(5):
        world.publish(report(number))
    world.use("none")
    world.publish(report(5))
    world.use("delta")
    world.publish(report(6), labels={"trigger": "hourly"})
    for number in range(3):
        world.publish(other_report(number))
    about = "Differences from bases: two bases, and a version without one between versions of the first."
    return vector(about, world, times=(START_MS + 4 * HOUR_MS,), versions=tuple(range(1, 11)))


def delta_as_base64() -> Json:
    world = World("delta", text_only=True)
    for number in range(3):
        world.publish(report(number))
    return vector("Differences from a base, published over REST: zstd+base64.", world, versions=(1, 2, 3))


def pinned() -> Json:
    world = World("delta")
    for number in range(4):
        world.publish(report(number))
    world.pin(2)
    return vector("Version 2 is pinned, so it is what is served.", world, versions=(2, 4))


def long_labels() -> Json:
    world = World("delta")
    label = "é" * 480
    world.publish(report(1), labels={"é": label})
    world.publish(report(2), labels={"a": label})
    world.pin(1)
    return vector(
        "Labels so long that the header line does not end in the first 2 KB.", world, versions=(1, 2)
    )


def long_history() -> Json:
    world = World("delta")
    for number in range(1, 161):
        late = START_MS + (number - 40) * HOUR_MS if number % 37 == 0 else None
        world.publish(b'{"run":%d,"price":%d}' % (number, number % 7), ts=late)
        if number % 25 == 0:
            world.client.confirm(DATASET)  # a version without a snapshot
        if number == 4:
            world.pin(4)
    world.prune(Retention(max_count=120))
    times = (START_MS + 4 * HOUR_MS, *(START_MS + hour * HOUR_MS for hour in range(30, 161, 13)))
    about = (
        "Pages of rows and of references. Versions that are missing, some that are dated back, older ones "
        "that retention hides, and one of these is pinned."
    )
    return vector(about, world, times=times, versions=(1, 4, 5, 26, *range(40, 160, 11), 165, 166, 167))


def hidden_by_age() -> Json:
    world = World()
    for number in range(20):
        world.publish(b"%d" % number, ts=START_MS if number == 10 else None)
    world.prune(Retention(max_age=timedelta(hours=12)))
    about = "Retention by age: rows below `floor` are hidden, also between others."
    return vector(about, world, times=(START_MS, START_MS + 5 * HOUR_MS), versions=(1, 11, 12))


COUNTRIES = ("EG", "SG", "region/MA", "constructor", "7")


def countries(number: int) -> dict[str, bytes]:
    """Members of which the first one changes with each number, and the others seldom or never."""
    made = {name: report(each) for each, name in enumerate(COUNTRIES)}
    return made | {"EG": report(number), "SG": report(number // 4), "7": b"{}"}


def group() -> Json:
    world = World()
    world.publish(TEXT)
    world.publish_group({"EG": TEXT, "SG": b"7", "constructor": b"[]"})
    about = "A group whose members are stored as they are, after a single snapshot."
    return group_vector(about, world, ["EG"], ["SG", "constructor"])


def group_of_bytes() -> Json:
    world = World("zstd")
    world.publish_group({"EG": BINARY * 3, "SG": b"", "tile/7": BINARY}, codec="bytes")
    return group_vector("Members of bytes, with zstd.", world, ["EG"], ["SG"])


def group_delta(*, text_only: bool = False) -> Json:
    world = World("delta", text_only=text_only)
    for number in range(6):
        world.publish_group(countries(number))
        if number == 2:
            world.publish(report(2))
    world.publish_group({**countries(6), "new": report(9)})
    about = "Members as differences from a base, some unchanged, and one that the base does not have"
    over = ", published over REST" if text_only else ""
    return group_vector(f"{about}{over}.", world, ["EG"], ["region/MA", "7", "new"])


def damaged_groups() -> dict[str, Json]:
    """A member of the group that is served is damaged."""
    world = World("delta")
    for number in range(2):
        world.publish_group(countries(number))
    keys = world.keys
    prefix = key("member", f"report-2:{world.rows[-1]['sha256'][:8]}:")
    changed, same = prefix + "EG", prefix + "region/MA"
    (base,) = [name for name in keys if ":base:" in name and name.endswith("g:region/MA")]
    missing = damaged_group("A member does not exist.", "missing", _without(keys, changed), "EG")
    swapped = damaged_group(
        "A member has the record of another one.", "corrupt", keys | {changed: keys[prefix + "7"]}
    )
    made = {
        "altered": ("A member is altered.", changed, keys[changed][:-3] + b"000", "EG"),
        "no-size": ("A member has neither size nor base.", changed, b"{}\n", "EG"),
        "base-altered": ("The base of an unchanged member is altered.", base, keys[base][:-7], "region/MA"),
        "base-of-other": (
            "It has another member than its key.",
            base,
            _restated(keys[base], member="EG"),
            "region/MA",
        ),
    }
    found = {
        name: damaged_group(about, "corrupt", keys | {where: value}, of)
        for name, (about, where, value, of) in made.items()
    }
    lost = damaged_group("The base of a member does not exist.", "missing", _without(keys, base), "region/MA")
    assert same in keys
    return found | {"missing": missing, "base-missing": lost, "other": swapped}


def dropped() -> Json:
    world = World()
    for number in range(20):
        world.publish(b"%d" % number)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        world.client.drop(DATASET, on_progress=stop)
    about = "A dataset that is being dropped: nothing is published, although there are rows and records."
    made = vector(about, world)
    return {**made, "latest": None, "history": [], "versions": [{"version": 20, "answer": None}]}


# --- what is damaged -------------------------------------------------------------------------------


def _two() -> tuple[Keys, str, str]:
    """A store with two versions, of which the second is a difference; the keys of its record and its base."""
    world = World("delta")
    for number in range(2):
        world.publish(report(number))
    keys = world.keys
    (base,) = [name for name in keys if ":base:" in name]
    return keys, key("id", "report-2"), base


def _restated(record: bytes, **fields: Any) -> bytes:
    """A record with other fields in its header; None: without the field."""
    header, _, body = record.partition(b"\n")
    changed = {name: value for name, value in (json.loads(header) | fields).items() if value is not None}
    return json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" + body


def bomb() -> bytes:
    """A zstd frame that states 4 GiB, all of it a window, and repeats 128 KiB a hundred times."""
    head = bytes.fromhex("28b52ffd") + bytes([0b11100000]) + GIGABYTES.to_bytes(8, "little")
    blocks = [((128 << 10) << 3) | 0b10] * 99 + [((128 << 10) << 3) | 0b11]
    return head + b"".join(block.to_bytes(3, "little") + b"A" for block in blocks)


def _without(keys: Keys, name: str) -> Keys:
    return {each: data for each, data in keys.items() if each != name}


def _wild(number: int) -> bytes:
    """Another report of the same size."""
    return report(number).replace(b"calm", b"wild")


def _frame(content: bytes) -> bytes:
    return encodings.base_content(content, text_only=False).body


def damaged_records() -> dict[str, Json]:
    """The record of the latest snapshot is damaged."""
    keys, record, _ = _two()
    header, _, frame = keys[record].partition(b"\n")
    plain = _restated(header, base=None)
    own = Dictionary("9.0123456789abcdef", other_report(1))
    made: dict[str, tuple[str, bytes]] = {
        "truncated": ("The frame is cut short.", keys[record][:-7]),
        "no-frame": ("The body is empty.", header + b"\n"),
        "not-zstd": ("The body is not a frame.", header + b"\n" + report(1)),
        "digest": ("It is another payload of the same size.", plain + _frame(_wild(1))),
        "longer": ("The payload is longer than its row says.", plain + _frame(report(1) * 2)),
        "gigabytes": ("The frame states gigabytes.", plain + bomb()),
        "other-dictionary": (
            "The frame was made with another base than it names.",
            header + b"\n" + encodings.encoded_as(report(1), "zstd", own).body,
        ),
        "no-base-named": ("The frame needs a base and names none.", plain + frame),
        "encoding": ("The encoding is unknown.", _restated(keys[record], encoding="zstd+xor")),
        "entry": ("It is the record of another snapshot.", _restated(keys[record], id="report-9")),
        "no-record": ("It is no record.", b"hello"),
    }
    found = {name: damaged(about, "corrupt", keys | {record: value}) for name, (about, value) in made.items()}
    return found | {"missing": damaged("It does not exist.", "missing", _without(keys, record))}


def damaged_bases() -> dict[str, Json]:
    """The base that the latest snapshot needs is damaged."""
    keys, _, base = _two()
    header = keys[base].partition(b"\n")[0] + b"\n"
    made: dict[str, tuple[str, bytes]] = {
        "truncated": ("The frame of the base is cut short.", keys[base][:-7]),
        "digest": ("It has another content of the same size.", header + _frame(_wild(0))),
        "gigabytes": (
            "It states gigabytes, and so does its frame.",
            _restated(header, size=GIGABYTES) + bomb(),
        ),
        "dataset": ("It is a base of another dataset.", _restated(keys[base], dataset="apac")),
        "name": ("It has another name than its key.", _restated(keys[base], base="7.0123456789abcdef")),
    }
    found = {name: damaged(about, "corrupt", keys | {base: value}) for name, (about, value) in made.items()}
    newer = damaged("It has a newer format.", "newer_format", keys | {base: _restated(keys[base], format=2)})
    return found | {
        "format": newer,
        "missing": damaged("It does not exist.", "missing", _without(keys, base)),
    }


def damaged_manifests() -> dict[str, Json]:
    """The manifest is not one that can be read."""
    keys, _, _ = _two()
    made: dict[str, tuple[str, str, bytes]] = {
        "format": ("It has a newer format.", "newer_format", _restated(keys[MANIFEST], format=2)),
        "dataset": ("It is that of another dataset.", "corrupt", _restated(keys[MANIFEST], dataset="apac")),
        "other": ("Something else writes to its key.", "corrupt", b"hello\n"),
    }
    return {
        name: damaged(about, error, keys | {MANIFEST: value}) for name, (about, error, value) in made.items()
    }


def damaged_pages() -> dict[str, Json]:
    """The latest snapshot can be read, and not the history."""
    world = World()
    for number in range(20):
        world.publish(b"%d" % number)
    page = min(name for name in world.keys if ":page:" in name)
    altered = world.keys | {page: world.keys[page].replace(b"report-3", b"report-4")}
    first = vector("A page is altered.", world, altered) | {"history": {"error": "corrupt"}}
    missing = vector("A page does not exist.", world, _without(world.keys, page))
    return {"altered": first, "missing": missing | {"history": {"error": "missing"}}}


# --- the files -------------------------------------------------------------------------------------


def vectors() -> dict[str, Json]:
    """All vectors by the name of their file."""
    whole = {
        "plain": plain(),
        "nothing": nothing(),
        "base64": as_base64(),
        "zstd": zstd(),
        "zstd-base64": zstd_as_base64(),
        "delta": delta(),
        "delta-base64": delta_as_base64(),
        "group": group(),
        "group-of-bytes": group_of_bytes(),
        "group-delta": group_delta(),
        "group-delta-base64": group_delta(text_only=True),
        "pinned": pinned(),
        "long-labels": long_labels(),
        "long-history": long_history(),
        "hidden-by-age": hidden_by_age(),
        "dropped": dropped(),
    }
    damages = {
        "record": damaged_records(),
        "base": damaged_bases(),
        "manifest": damaged_manifests(),
        "page": damaged_pages(),
        "group": damaged_groups(),
    }
    return whole | {f"{where}-{name}": made for where, each in damages.items() for name, made in each.items()}


def comparable(vector: Json) -> Json:
    """A vector without what differs between versions of zstd: frames, and the sizes that follow from them."""
    keys = {name: base64.b64decode(value) for name, value in vector["keys"].items()}
    return {**vector, "keys": {name: _comparable(name, value, keys) for name, value in keys.items()}}


def _comparable(name: str, record: bytes, keys: Keys) -> Any:
    header, _, body = record.partition(b"\n")
    kind = name.split(":")[1]
    with suppress(ValueError, UnicodeDecodeError):
        if kind == "manifest":
            log = json.loads(body)
            return header, log | {"base": log["base"] and log["base"][0]}
        if b'"encoding":"zstd' in header:
            return header, _content(json.loads(header), body, keys)
    return record


def _content(header: Json, body: bytes, keys: Keys) -> bytes | None:
    """What is in the body of a record. None: it cannot be decoded."""
    base = None
    with suppress(ValueError, KeyError):
        if name := header.get("base") if "id" in header else None:
            first, _, frame = keys[key("base", name)].partition(b"\n")
            base = Dictionary(name, _content(json.loads(first), frame, keys) or b"")
        return encodings.decoded(body, header["encoding"], header["size"], base)
    return None


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for old in DIRECTORY.glob("*.json"):
        old.unlink()
    for name, made in vectors().items():
        (DIRECTORY / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
