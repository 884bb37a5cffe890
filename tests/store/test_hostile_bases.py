"""Hostile bytes in compressed records, in bases and in what names them: `Corrupt`, and bounded memory."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Store, codecs
from swapstore.errors import Corrupt, SwapstoreError
from swapstore.format import bases, encodings, records
from swapstore.format.encodings import Dictionary, Encoded
from swapstore.format.keys import base_name
from tests.store.test_compression import document, in_force, publish_all, stored_as
from tests.store.test_damage import MANIFEST, alter
from tests.support import bases as payloads
from tests.support.drivers import another

pytestmark = pytest.mark.slow

ROW = "swapstore:id:{mena}:id-1"
HUGE = b"9" * 400
PAYLOAD = codecs.encode(document(1), "json", limit_bytes=1 << 20)


def claiming(frame: bytes, size: int) -> bytes:
    """The same zstd frame, whose header claims another size, in eight bytes."""
    info = frame[4]
    window = 0 if info & 0x20 else 1
    dictionary = (0, 1, 2, 4)[info & 3]
    sized = (1 if info & 0x20 else 0, 2, 4, 8)[info >> 6]
    begin, rest = frame[5 : 5 + window + dictionary], frame[5 + window + dictionary + sized :]
    return frame[:4] + bytes([info & 0x3F | 0xC0]) + begin + size.to_bytes(8, "little") + rest


def framed(record: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A record with another body."""
    line, _, body = record.partition(b"\n")
    return line + b"\n" + change(body)


@cache
def bomb(size: int) -> bytes:
    """A small frame of so many bytes."""
    return encodings.compressed(b"\0" * size, text_only=False).body


def renamed(record: bytes, name: bytes) -> bytes:
    return re.sub(rb'"base":"[^"]*"', lambda _: b'"base":' + name, record, count=1)


ODD_NAMES = [
    b'"1"',
    b'"1.zz"',
    b'"../x"',
    b'"1.0123456789abcdef\\n"',
    b'"' + b"9" * 5000 + b'.0123456789abcdef"',
    b'"\\u0000"',
    b'"\xc3\xa9"',
    b'"\xff"',
    b"7",
    b"[]",
    b"{}",
    b'"}:manifest:{asia"',
]
RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "claims gigabytes": lambda raw: framed(raw, lambda body: claiming(body, 1 << 40)),
    "claims nothing": lambda raw: framed(raw, lambda body: claiming(body, 0)),
    "is a bomb": lambda raw: framed(raw, lambda _: bomb(1 << 27)),
    "is a bomb of a small claim": lambda raw: framed(raw, lambda _: claiming(bomb(1 << 27), len(PAYLOAD))),
    "cut": lambda raw: raw[:-3],
    "cut in the frame's header": lambda raw: framed(raw, lambda body: body[:6]),
    "empty": lambda raw: framed(raw, lambda _: b""),
    "more behind": lambda raw: raw + b"more",
    "two frames": lambda raw: framed(raw, lambda body: body * 2),
    "no frame": lambda raw: framed(raw, lambda body: b"x" * len(body)),
    "skippable frame": lambda raw: framed(raw, lambda _: bytes.fromhex("502a4d18") + b"\4\0\0\0abcd"),
    "other encoding": lambda raw: raw.replace(b'"encoding":"zstd"', b'"encoding":"base64"'),
    "no known encoding": lambda raw: raw.replace(b'"encoding":"zstd"', b'"encoding":"br"'),
    "text encoding": lambda raw: raw.replace(b'"encoding":"zstd"', b'"encoding":"zstd+base64"'),
    "no encoding": lambda raw: raw.replace(b',"encoding":"zstd"', b""),
    "without its base": lambda raw: re.sub(rb',"base":"[^"]*"', b"", raw, count=1),
    "other content": lambda raw: framed(
        raw, lambda _: encodings.encoded_as(PAYLOAD[::-1], "zstd", None).body
    ),
}
RECORDS |= {f"odd base {name[:24]!r}": lambda raw, name=name: renamed(raw, name) for name in ODD_NAMES}  # type: ignore[misc]


def forged_base(name: str, content: bytes, *, dataset: str = "mena") -> bytes:
    return bases.pack(
        name,
        encodings.base_content(content, text_only=False),
        size=len(content),
        sha256=records.digest(content),
        dataset=dataset,
    )


BASES: dict[str, Callable[[str, bytes], bytes]] = {
    "claims gigabytes": lambda _, raw: framed(raw, lambda body: claiming(body, 1 << 40)),
    "states gigabytes": lambda _, raw: re.sub(rb'"size":[0-9]+', b'"size":%d' % (1 << 40), raw),
    "states 400 digits": lambda _, raw: re.sub(rb'"size":[0-9]+', b'"size":' + HUGE, raw),
    "states less than nothing": lambda _, raw: re.sub(rb'"size":[0-9]+', b'"size":-1', raw),
    "is a bomb": lambda _, raw: framed(raw, lambda _: bomb(1 << 27)),
    "cut": lambda _, raw: raw[:-3],
    "empty": lambda _, raw: b"",  # noqa: ARG005
    "of another dataset": lambda name, _: forged_base(name, PAYLOAD, dataset="asia"),
    "of another name": lambda name, _: forged_base(f"9{name}", PAYLOAD),
    "of other content": lambda _, raw: raw.partition(b"\n")[0] + b"\n" + Encoded(bomb(len(PAYLOAD))).body,
    "too short": lambda *_: forged_base(base_name(1, records.digest(b"x")), b"x"),
    "a trained dictionary": lambda name, _: forged_base(name, bytes.fromhex("37a430ec") + PAYLOAD),
    "nested": lambda _, raw: b'{"base":' + b"[" * 100_000 + b"\n" + raw,
    "no json": lambda _, raw: b"\xff\n" + raw,
}
IN_FORCE = re.compile(rb'"base":(\[[^\]]*\]|null)\}$')
MANIFESTS: dict[str, Callable[[bytes], bytes]] = {
    f"in force {value[:30]!r}": lambda raw, value=value: IN_FORCE.sub(  # type: ignore[misc]
        lambda _: b'"base":' + value + b"}", raw
    )
    for value in (
        b'["1.0123456789abcdef",1,1,1,1]',
        b'["1.0123456789abcdef",' + HUGE + b",1,1,1]",
        b'["1.0123456789abcdef",1,%d,%d,1]' % (2**53 - 1, 2**53 - 1),
        b'["1.0123456789abcdef",-1,-1,-1,-1]',
        b'["../..",1,1,1,1]',
        b'["1.0123456789abcdef"]',
        b"[]",
        b"7",
        b'"1.0123456789abcdef"',
    )
}
MANIFESTS |= {
    f"huge numbers {value!r}": lambda raw, value=value: IN_FORCE.sub(  # type: ignore[misc]
        lambda found: re.sub(rb"(,[0-9]+){4}\]", value, found[0]), raw
    )
    for value in (
        b",%d,%d,%d,%d]" % ((2**53 - 1,) * 4),
        b",0,%d,%d,1]" % ((2**53 - 1,) * 2),
        b",1000000,%d,1,1]" % (2**53 - 1),
        b",1000000,%d,%d,1]" % ((2**53 - 1,) * 2),
        b",%d,0,0,0]" % -(2**53 - 1),
    )
}
MANIFESTS |= {
    f"odd base in the head {name[:24]!r}": lambda raw, name=name: renamed(raw, name)  # type: ignore[misc]
    for name in ODD_NAMES
}
MANIFESTS |= {
    f"odd base in a row {name[:24]!r}": lambda raw, name=name: re.sub(  # type: ignore[misc]
        rb'(\n.*?)"[0-9]+\.[0-9a-f]{16}"', lambda found: found[1] + name, raw, count=1
    )
    for name in ODD_NAMES
}
MANIFESTS |= {
    "huge bases below a page": lambda raw: re.sub(
        rb'"pages":\[\[([0-9]+,[0-9]+,[0-9]+,[0-9]+)', rb'"pages":[[\1,null,null,' + HUGE + b"," + HUGE, raw
    ),
    "bases below a page from the future": lambda raw: re.sub(
        rb'"pages":\[\[([0-9]+,[0-9]+,[0-9]+,[0-9]+)', rb'"pages":[[\1,null,null,-5,-5', raw
    ),
}


@pytest.fixture
def published(store: Store) -> Store:
    """A dataset of differences from one base, in a page and a tail, and another dataset."""
    producer, _ = stored_as(store, "delta")
    publish_all(producer, *range(18))
    producer.publish("asia", "a")
    return store


def calls(store: Store) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What a user can ask about the dataset."""

    def followed() -> list[Any]:
        with closing(another(store).follow("mena", after=0, poll=0.001)) as follower:
            return list(islice(follower, 3))

    yield "read_latest", lambda: store.read_latest("mena")
    yield "read", lambda: store.read("mena", id="id-1")
    yield "read a version", lambda: store.read("mena", version=2)
    yield "history", lambda: list(store.history("mena", limit=None))
    yield "follow", followed
    yield "verify", lambda: list(store.verify("mena"))
    yield "pin", lambda: store.pin("mena", id="id-1")
    yield "unpin", lambda: store.unpin("mena")
    yield "publish", lambda: store.publish("mena", document(3))
    yield "publish again", lambda: store.publish("mena", document(1), id="id-1")
    yield "publish other content", lambda: store.publish("mena", payloads.strange(9), codec="bytes")
    yield "repair", lambda: store.repair("mena")


def call_everything(store: Store, warm: Store) -> None:
    """Every call ends with an answer or an error of ours."""
    for client in (stored_as(store, "delta")[0], warm):
        for name, call in calls(client):
            try:
                call()
            except SwapstoreError:
                continue
            except Exception as error:
                raise AssertionError(name) from error
    assert another(store).read_latest("asia") is not None


def warm_producer(store: Store) -> Store:
    """A producer of differences that remembers the manifest and the base."""
    producer, _ = stored_as(store, "delta")
    producer.publish("mena", document(2), id="warm")
    return producer


@pytest.mark.parametrize("how", RECORDS)
def test_a_hostile_record(published: Store, how: str) -> None:
    """One record stops a reader with another error than `Corrupt`, or fills its memory."""
    warm = warm_producer(published)
    alter(published, ROW, RECORDS[how])
    with pytest.raises(Corrupt):
        another(published).read("mena", id="id-1")
    call_everything(published, warm)


@pytest.mark.parametrize("how", BASES)
def test_a_hostile_base(published: Store, how: str) -> None:
    """A base stops a reader with another error than `Corrupt`, or a producer from publishing."""
    warm = warm_producer(published)
    key = in_force(published)
    name = key.rpartition(":")[2]
    alter(published, key, lambda raw: BASES[how](name, raw))
    with pytest.raises(Corrupt) as raised:
        another(published).read("mena", id="id-1")
    assert raised.value.key == key
    producer, _ = stored_as(published, "delta")
    assert producer.publish("mena", document(5), id="after").created, "publishing goes on"
    snapshot = another(published).read("mena", id="after")
    assert snapshot is not None
    assert snapshot.value == document(5)
    call_everything(published, warm)


@pytest.mark.parametrize("how", MANIFESTS)
def test_hostile_names_and_numbers_of_bases(published: Store, how: str) -> None:
    """A manifest that names a base oddly stops readers with another error than `Corrupt`."""
    warm = warm_producer(published)
    before: list[bytes] = []

    def change(raw: bytes) -> bytes:
        before.append(raw)
        return MANIFESTS[how](raw)

    alter(published, MANIFEST, change)
    changed: list[bytes] = []
    alter(published, MANIFEST, lambda raw: changed.append(raw) or raw)  # type: ignore[func-returns-value]
    assert changed != before, "the change does not fit"
    call_everything(published, warm)
    if how.startswith("huge numbers"):
        assert stored_as(published, "delta")[0].publish("mena", document(7)).created
        assert len(list(another(published).history("mena", limit=None))) > 18, "and others can read it"


def test_the_base_of_another_dataset_is_not_used(store: Store) -> None:
    """A record that names a base of the same name in another dataset is decoded with that."""
    producer, _ = stored_as(store, "delta")
    for dataset in ("mena", "asia"):
        producer.publish(dataset, document(0), id="a")
        producer.publish(dataset, document(1), id="b")
    base = Dictionary("1.0123456789abcdef", PAYLOAD[::-1])
    other = encodings.encoded_as(PAYLOAD, "zstd", base)
    key = "swapstore:id:{mena}:b"
    alter(store, key, lambda raw: renamed(framed(raw, lambda _: other.body), b'"1.0123456789abcdef"'))
    with pytest.raises(SwapstoreError):
        another(store).read("mena", id="b")


@pytest.mark.parametrize("where", ["record", "base", "both", "text"])
def test_memory_is_bounded_whatever_a_frame_claims(tmp_path: Path, where: str) -> None:
    """One hostile record makes every reader allocate gigabytes."""
    url = f"sqlite:///{tmp_path}/store.db"
    with swapstore.connect(url, compression="delta") as store:
        publish_all(store, *range(3))
        base = in_force(store)
        large = claiming(bomb(1 << 27), 1 << 32) if where == "both" else bomb(1 << 27)
        if where == "text":
            text = base64.b64encode(large)
            alter(
                store,
                ROW,
                lambda raw: framed(raw, lambda _: text).replace(b'"zstd"', b'"zstd+base64"'),
            )
        if where in {"record", "both"}:
            alter(store, ROW, lambda raw: framed(raw, lambda _: large))
        if where in {"base", "both"}:
            alter(store, base, lambda raw: framed(raw, lambda _: large))
    program = f"""
import resource, swapstore
store = swapstore.connect({url!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    store.read("mena", id="id-1")
except swapstore.Corrupt:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kilobytes = int(done.stdout) * (1 if sys.platform == "linux" else 1 / 1024)
    assert kilobytes < 32 * 1024
