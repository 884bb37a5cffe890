"""`python -m tests.screenshots [name...]`: pictures of the page, for the README and docs/.

It writes all of `SHOTS`, or those whose name holds one of the words, to docs/images/. Look at them before you
commit them.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
from playwright.sync_api import FloatRect

from swapstore import Store
from swapstore.cache import Cache
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context, SystemClock
from tests.serve.conftest import TOKEN, served
from tests.support.browser import Browser, Scheme, find, launched, missing
from tests.support.web import Site

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LARGEST_BYTES = 150_000
HOUR_MS = 3_600_000
BOUNDS = {"europe": "6h", "latam": "6h", "mena": "12h"}


@attrs.frozen
class Shot:
    """A picture: the name of its file, and what it shows."""

    name: str
    path: str
    width: int = 1280
    height: int = 900
    scheme: Scheme = "light"


SHOTS = (
    Shot("datasets", "/", height=360),
    Shot("dataset", "/datasets/mena"),
    Shot("dataset-on-a-phone", "/datasets/mena", width=390, height=800, scheme="dark"),
    Shot("snapshot", "/datasets/mena/versions/24", height=720, scheme="dark"),
    Shot("value", "/datasets/mena/value?pointer=/prices/mena-007", height=720),
    Shot("diff", "/datasets/europe/diff?from=23&to=24", height=700),
)


def take(shots: Sequence[Shot], directory: Path) -> None:
    """Write a PNG file of each. Raises `AssertionError` for a page that is not there or has complaints."""
    chromium = find()
    assert chromium is not None, missing()
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="swapstore-") as home:
        path = Path(home) / "store.db"
        prepare(path)
        with (
            served(f"sqlite:///{path}", bounds=BOUNDS, allow_writes=True, token=TOKEN) as site,
            launched(chromium) as browser,
        ):
            for shot in shots:
                picture = taken(browser, site, shot)
                assert len(picture) <= LARGEST_BYTES, f"{shot.name}: {len(picture)} bytes"
                (directory / f"{shot.name}.png").write_bytes(picture)


def taken(browser: Browser, site: Site, shot: Shot) -> bytes:
    """Return one picture as PNG."""
    with browser.page(shot.width, shot.scheme) as page:
        response = page.goto(f"http://127.0.0.1:{site.port}{shot.path}")
        assert response is not None
        assert response.ok, f"{shot.path}: {response.status}"
        clip = FloatRect(x=0, y=0, width=shot.width, height=shot.height)
        return page.screenshot(animations="disabled", clip=clip)


class Past(SystemClock):
    """A clock that shows what it is set to."""

    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self.ms


def prepare(path: Path) -> None:
    """Publish two days of snapshots to a SQLite file, the last of them minutes ago."""
    dice = random.Random(7)  # the same pictures each time, but for their times
    now_ms = time.time_ns() // 1_000_000
    clock = Past(now_ms)
    context = Context(keys=Keys("swapstore"), cache=Cache(0), clock=clock, random=dice)
    with Store(SqliteDriver(path), context) as store:
        for dataset in ("europe", "latam", "mena", "south-asia"):
            stations = {f"{dataset}-{number:03}": 40.0 for number in range(60)}
            for hours in range(48, 0, -2):
                clock.ms = now_ms - hours * HOUR_MS + dice.randrange(HOUR_MS, 2 * HOUR_MS)
                for station in dice.sample(sorted(stations), 5):
                    stations[station] = round(stations[station] + dice.uniform(-3, 3), 2)
                store.publish(
                    dataset,
                    {"unit": "USD/MWh", "prices": stations},
                    labels={"trigger": dice.choice(["schedule", "schedule", "manual"])},
                    count=len(stations),
                )


def main(words: list[str]) -> None:
    """Write the pictures."""
    take([shot for shot in SHOTS if not words or any(word in shot.name for word in words)], IMAGES)


if __name__ == "__main__":
    main(sys.argv[1:])
