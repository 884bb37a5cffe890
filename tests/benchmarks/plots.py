"""Three plots as SVG, on logarithmic axes: the memory of a version, and a publish by depth and by size.

They are drawn here: only lines, ticks and names are needed, and a plotting library would be the largest
dependency of this project.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import attrs

from tests.benchmarks import depth_timing, history, payloads, publishing
from tests.benchmarks.bench import titled
from tests.benchmarks.report import Report

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 196, 44, 56
COLOURS = ("#2a6fdb", "#c2571a", "#3b8f5a", "#8a4fbf", "#777777")
STYLE = """text{font:13px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}
.grid{stroke:#ddd}.axis{stroke:#999}rect{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#ddd}rect{fill:#16181d}.grid{stroke:#333}.axis{stroke:#777}}"""

Points = list[tuple[float, float]]


@attrs.frozen
class Plot:
    """Lines by name, of points that are greater than zero."""

    name: str
    title: str
    across: str
    up: str
    lines: dict[str, Points]

    def svg(self) -> str:
        """Draw it."""
        x = Scale([point[0] for each in self.lines.values() for point in each], LEFT, WIDTH - RIGHT)
        y = Scale([point[1] for each in self.lines.values() for point in each], HEIGHT - BOTTOM, TOP)
        drawn = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escape(self.title)}</title><style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}"/>',
            _text(LEFT, 24, self.title, kind="title"),
            _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, self.across, anchor="middle"),
            self._up(),
            *self._grid(x, y),
            *self._lines(x, y),
            "</svg>",
        ]
        return "\n".join(drawn) + "\n"

    def _up(self) -> str:
        place = f'transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"'
        return f'<text {place} text-anchor="middle">{escape(self.up)}</text>'

    def _grid(self, x: Scale, y: Scale) -> Iterator[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for tick in x.ticks():
            yield _line("grid", (x(tick), TOP), (x(tick), bottom))
            yield _text(x(tick), bottom + 18, _short(tick), anchor="middle")
        for tick in y.ticks():
            yield _line("grid", (LEFT, y(tick)), (right, y(tick)))
            yield _text(LEFT - 8, y(tick) + 4, _short(tick), anchor="end")
        yield _line("axis", (LEFT, bottom), (right, bottom))
        yield _line("axis", (LEFT, TOP), (LEFT, bottom))

    def _lines(self, x: Scale, y: Scale) -> Iterator[str]:
        """Draw each line and put its name at its end; names that would overlap move down."""
        ends = sorted(self.lines, key=lambda name: y(self.lines[name][-1][1]))
        below = 0.0
        for name in ends:
            colour = COLOURS[list(self.lines).index(name) % len(COLOURS)]
            points = [(x(a), y(b)) for a, b in self.lines[name]]
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            yield from (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points)
            below = max(below + 16, points[-1][1] + 4)
            yield _text(WIDTH - RIGHT + 10, below, name, colour=colour)


class Scale:
    """From values to positions, by their logarithms; it begins and ends at a power of ten, or half of one."""

    def __init__(self, values: list[float], begin: float, end: float) -> None:
        logs = [math.log10(value) for value in values]
        self._low = math.floor(2 * min(logs)) / 2
        self._high = max(math.ceil(2 * max(logs)) / 2, self._low + 0.5)
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return self._begin + part * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Return the powers of ten; with few of them, their doubles and fives as well."""
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        few = self._high - self._low < 2.5
        found = [step * 10.0**power for power in powers for step in ((1, 2, 5) if few else (1,))]
        return [each for each in found if self._low - 1e-9 <= math.log10(each) <= self._high + 1e-9]


def write(report: Report, directory: Path) -> list[Path]:
    """Write the plots that this run has figures for."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for plot in (_memory(report), _by_depth(report), _by_size(report)):
        if any(len(points) > 1 for points in plot.lines.values()):
            path = directory / f"{plot.name}.svg"
            path.write_text(plot.svg(), "utf-8")
            written.append(path)
    return written


def _memory(report: Report) -> Plot:
    sequences = sorted(report.facts.get(history.SECTION, {}).values(), key=lambda found: found["size"])
    names = {history.SIX: history.SIX} | {way: f"swapstore, {way}" for way in history.WAYS}
    lines = {
        name: [(each["size"], each["server"][way]["MEMORY USAGE of all keys"]) for each in sequences]
        for way, name in names.items()
    }
    title = "What one more version of a document takes in the server's memory"
    return Plot("memory-by-size", title, "bytes of the document", "bytes a version", lines)


def _by_depth(report: Report) -> Plot:
    lines: dict[str, Points] = {}
    for name, kind, way in (
        ("swapstore, Valkey", "valkey", depth_timing.AT_DEPTH),
        ("swapstore, SQLite", "sqlite", depth_timing.AT_DEPTH),
        ("the six, Valkey", "valkey", depth_timing.SIX),
    ):
        depths = sorted({*depth_timing.DEPTHS, *depth_timing.QUICK_DEPTHS})
        keys = {versions: (depth_timing.titled(kind, versions), way) for versions in depths}
        lines |= _line_of(name, keys, report)
    title = "A publish of 1 KB, by how many versions there are"
    return Plot("publish-by-depth", title, "versions in the dataset", "median, µs", lines)


def _by_size(report: Report) -> Plot:
    lines: dict[str, Points] = {}
    for name, way in (
        ("swapstore", publishing.WARM),
        ("the six, MULTI/EXEC", publishing.SIX),
        ("the six, pipelined", publishing.SIX_PIPED),
        ("one SET", publishing.SET),
    ):
        keys = {size: (titled(publishing.SECTION, of, 0), way) for of, size in payloads.SIZES.items()}
        lines |= _line_of(name, keys, report)
    title = "A warm publish on loopback, by the size of the payload"
    return Plot("publish-by-size", title, "bytes", "median, µs", lines)


def _line_of(name: str, keys: dict[int, tuple[str, str]], report: Report) -> dict[str, Points]:
    """Return the line of what was measured; none if nothing was."""
    points = [(float(at), report.samples[key].median_us) for at, key in keys.items() if key in report.samples]
    return {name: points} if points else {}


def _short(value: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _line(kind: str, begin: tuple[float, float], end: tuple[float, float]) -> str:
    return (
        f'<line class="{kind}" x1="{begin[0]:.1f}" y1="{begin[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "", colour: str = "") -> str:
    style = f' style="fill:{colour}"' if colour else ""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{of_kind}{style}>{escape(text)}</text>'
