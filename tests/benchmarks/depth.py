"""`python -m tests.benchmarks.depth [--json PATH] [--versions N,N,...]`: what depth costs, counted.

Builds a dataset in bulk, on SQLite and on a real Valkey server, and counts what each operation takes at each
depth: round trips, commands and bytes (on the wire, or of the values on SQLite). Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
from rich.console import Console
from rich.table import Table

import swapstore
from swapstore.format.manifest import F, G
from tests.benchmarks.costs import BOUND, BOUNDED, Bed, Costs, Walk, ratios, walk
from tests.support.proxy import Proxy
from tests.support.valkey import Server

BASE = 100
TARGET = 1_000_000
WIDEST = F * G**5  # the manifest has 35 references, more than at any depth before
WALKED = (50, 16_384)  # rows; memory is traced meanwhile, which takes most of the time
PIPED_WIDTH = 130
STORES = ("sqlite", "valkey")


@attrs.frozen
class Findings:
    """What was counted on one store, by depth, and the walks through the history at the target."""

    store: str
    costs: dict[int, Costs]
    references: dict[int, int]  # in the manifest
    walks: list[Walk]

    def missed(self, versions: int) -> list[str]:
        """Which operations take more than the bound allows."""
        base, now = self.costs[min(self.costs)], self.costs[versions]
        return [name for name in BOUNDED if max(ratios(now[name], base[name])) > BOUND]


def main(arguments: list[str]) -> int:
    """Print the tables; 1 if a target is missed at a million versions (or fewer)."""
    parser = argparse.ArgumentParser(prog="depth", description="count what a deep dataset costs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there, too")
    parser.add_argument("--versions", default=f"{BASE},10000,{TARGET},{WIDEST}", metavar="N,N,...")
    chosen = parser.parse_args(arguments)
    depths = sorted({int(number) for number in chosen.versions.split(",")})
    found = [count(kind, depths) for kind in STORES]
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    for findings in found:
        console.print(table(findings))
        for taken in findings.walks:
            console.print(described(taken), highlight=False)
    for line in (line for findings in found for line in summary(findings)):
        console.print(line, highlight=False)
    if chosen.json:
        chosen.json.write_text(json.dumps([attrs.asdict(each) for each in found], indent=1) + "\n")
    return int(any(each.missed(depth) for each in found for depth in depths if depth <= TARGET))


# --- counting --------------------------------------------------------------------------------------


def count(kind: str, depths: list[int], also: Callable[[Bed, int], None] | None = None) -> Findings:
    """Count on one kind of store, at each depth; at each, call a function that leaves the store unchanged."""
    console = Console(stderr=True)
    found = Findings(kind, {}, {}, [])
    with bed(kind) as made:
        for depth in depths:
            with console.status(f"{kind}: {depth:,} versions"):
                found.costs[depth] = made.measure(depth)
                found.references[depth] = len(made.manifest().log.pages)
                if also is not None:
                    also(made, depth)
                if depth == max((each for each in depths if each <= TARGET), default=depths[0]):
                    found.walks.extend(walk(made.store, rows=rows) for rows in WALKED)
    return found


@contextmanager
def bed(kind: str) -> Iterator[Bed]:
    """An empty store of one kind, removed afterwards."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="swapstore-depth-")))
        if kind == "sqlite":
            store = stack.enter_context(swapstore.connect(f"sqlite:///{directory}/depth.db"))
            yield Bed(store, store)
            return
        server = stack.enter_context(Server(directory))
        proxy = stack.enter_context(Proxy(server.port))
        store, metered = (stack.enter_context(swapstore.connect(url)) for url in (server.url, proxy.url))
        yield Bed(store, metered, proxy, url=server.url)


# --- showing ---------------------------------------------------------------------------------------


def table(found: Findings) -> Table:
    """Show one line for each operation at each depth."""
    bytes_of = "on the wire" if found.store == "valkey" else "of values"
    shown = Table("operation", title=f"{found.store}: means over {F} publishes; bytes {bytes_of}")
    for heading in (
        "versions",
        "refs",
        "trips",
        "commands",
        "sent",
        "received",
        "ratio",
        "page reads",
        "bytes",
    ):
        shown.add_column(heading, justify="right")
    base = found.costs[min(found.costs)]
    for name in base:
        for depth, costs in found.costs.items():
            rest, pages = costs[name].rest, costs[name].pages
            ratio = max(ratios(costs[name], base[name]))
            missed = name in BOUNDED and ratio > BOUND
            shown.add_row(
                name if depth == min(found.costs) else "",
                f"{depth:,}",
                str(found.references[depth]),
                *(f"{rest.round_trips:.0f}", f"{rest.commands:.2f}", f"{rest.sent:,.0f}"),
                f"{rest.received:,.0f}",
                f"[red]{ratio:.2f}[/]" if missed else f"{ratio:.2f}",
                *((f"{pages.round_trips:.2f}", f"{pages.bytes:,.0f}") if pages.round_trips else ("", "")),
                end_section=depth == max(found.costs),
            )
    return shown


def described(taken: Walk) -> str:
    """Describe the cost of a walk."""
    return (
        f"history: {taken.rows:,} rows taken one by one, {taken.pages:,} pages loaded, "
        f"{taken.bytes:,} bytes read, {taken.peak_bytes:,} bytes of memory at the peak"
    )


def summary(found: Findings) -> Iterator[str]:
    """Say at which depths the targets are met."""
    first, *deeper = found.costs
    for depth in deeper:
        missed = found.missed(depth)
        aside = " (the widest manifest so far; for information)" if depth == WIDEST else ""
        yield (
            f"{found.store}, {depth:,} versions{aside}: round trips and bytes at most {BOUND} times those at "
            f"{first:,}: {len(BOUNDED) - len(missed)} of {len(BOUNDED)}, "
            + (f"MISSED: {'; '.join(missed)}" if missed else "all met")
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
