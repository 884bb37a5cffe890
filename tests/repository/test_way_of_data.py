"""The way of data through the package, traced: how many files and generators a call crosses."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import attrs
import pytest

import swapstore
from tests.support.valkey import Server

PACKAGE = Path(swapstore.__file__).parent


@attrs.define
class Way:
    """The files and generators that a call went through, in the order in which it came to each first."""

    files: list[str] = attrs.field(factory=list)
    generators: list[str] = attrs.field(factory=list)

    def note(self, code: CodeType) -> None:
        path = Path(code.co_filename)
        if not path.is_relative_to(PACKAGE):
            return
        file = str(path.relative_to(PACKAGE))
        if file not in self.files:
            self.files.append(file)
        if code.co_flags & inspect.CO_GENERATOR and code.co_name != "<genexpr>":
            name = f"{file}: {code.co_qualname}"
            if name not in self.generators:
                self.generators.append(name)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{len(self.files)} files:",
                *self.files,
                f"{len(self.generators)} generators:",
                *self.generators,
            ]
        )


def way_of(call: Callable[[], object]) -> Way:
    """Trace a call."""
    way = Way()

    def trace(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            way.note(frame.f_code)

    sys.setprofile(trace)
    try:
        call()
    finally:
        sys.setprofile(None)
    return way


def test_a_publish_crosses_few_files(valkey: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who looks for a lost publish would have to read thirty files."""
    with swapstore.connect(valkey.url) as store:
        store.publish("mena", {"regime": "calm"})
        way = way_of(lambda: store.publish("mena", {"regime": "tense"}))
    with capsys.disabled():
        print(f"\npublish, warm: {way}")  # noqa: T201 - to be read
    assert len(way.files) <= 18
    assert len(way.generators) <= 5


def test_a_first_read_crosses_few_files(valkey: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who asks why a reader sees what it sees would have to read half of the package."""
    with swapstore.connect(valkey.url) as store:
        store.publish("mena", {"regime": "calm"})
    with swapstore.connect(valkey.url) as reader:
        way = way_of(lambda: reader.read_latest("mena"))
    with capsys.disabled():
        print(f"\nread_latest, cold: {way}")  # noqa: T201
    assert len(way.files) <= 15
