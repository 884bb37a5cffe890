"""Everything that is public from 0.1.0 on, as text: `tests/golden/public.txt` holds it.

What is public, and how it may change, is in docs/reference/compatibility.md.

    python -m tests.docs.public_names    # write the file anew, after a change that the changelog tells
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import prometheus_client
from cyclopts import App

from swapstore import observe
from swapstore.cli import ExitCode
from swapstore.cli.app import ERROR_CODES, app

GOLDEN = Path(__file__).parents[1] / "golden" / "public.txt"
MODULES = (
    "swapstore",
    *(f"swapstore.{name}" for name in ("aio", "events", "http", "http.django", "http.flask", "http.health")),
    *(f"swapstore.{name}" for name in ("http.starlette", "observe", "testing", "validators")),
)
# Named without an underscore because another module of the package calls them; not in the reference.
_INTERNAL = {"after_fork", "misuse", "of"}
_INTERNAL_OF_ERRORS = {"again", "behind"}
_PROTOCOLS = {
    f"__{name}__"
    for name in ["aenter", "aexit", "aiter", "contains", "enter", "exit", "getitem", "iter", "len"]
}
_ENUM = re.compile(r"<(\w+\.\w+): [^>]*>")


def public() -> str:
    """Return the whole file."""
    lines: list[str] = []
    for name in MODULES:
        module = importlib.import_module(name)
        lines += ["", f"# {name}", ""]
        names = getattr(module, "__all__", None) or _defined(module)
        for each in sorted(names):
            lines += _described(each, getattr(module, each), brief=name == "swapstore.testing")
    lines += ["", "# exit codes", "", *(f"{code.value} {code.name}" for code in sorted(ExitCode))]
    lines += sorted(f"{kind.__name__}: {code.value}" for kind, code in ERROR_CODES.items())
    everywhere = (name for argument in app.meta.assemble_argument_collection() for name in argument.names)
    lines += [
        "",
        "# command line",
        "",
        f"swapstore {' '.join(sorted(everywhere))}",
        *_commands(app, "swapstore"),
    ]
    lines += [
        "",
        "# metrics for OpenTelemetry",
        "",
        *_otel(),
        "",
        "# metrics for Prometheus",
        "",
        *_prometheus(),
    ]
    return "\n".join(lines[1:]) + "\n"


def _defined(module: Any) -> list[str]:
    """The public functions and classes of a module without `__all__`."""
    return [
        name
        for name, each in vars(module).items()
        if not name.startswith("_") and getattr(each, "__module__", None) == module.__name__
    ]


def _described(name: str, each: Any, *, brief: bool) -> Iterator[str]:
    if not inspect.isclass(each):
        yield f"def {name}{_signature(each)}" if inspect.isfunction(each) else name
        return
    bases = ", ".join(base.__name__ for base in each.__bases__ if base is not object)
    yield f"class {name}({bases})" if bases else f"class {name}"
    if issubclass(each, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in each)
    if attrs.has(each):
        for field in attrs.fields(each):
            if not field.name.startswith("_"):
                yield f"    {field.name}{'' if field.default is attrs.NOTHING else ' = …'}"
    if brief:  # the tests of a contract may become more
        return
    ours = {name for base in each.__mro__ if base.__module__.startswith("swapstore") for name in vars(base)}
    hidden = _INTERNAL | (_INTERNAL_OF_ERRORS if issubclass(each, Exception) else set())
    hidden |= {field.name for field in attrs.fields(each)} if attrs.has(each) else set()
    for member in sorted(ours - hidden):
        value = getattr(each, member)
        if (member.startswith("_") and member not in _PROTOCOLS) or isinstance(value, enum.Enum):
            continue
        yield f"    def {member}{_signature(value)}" if callable(value) else f"    {member}"


def _signature(each: Any) -> str:
    """A signature without types: a type may become wider, and mypy and pyright test the ones that matter."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(each).parameters.values()
    ]
    return _ENUM.sub(r"\1", str(inspect.Signature(parameters)))


def _commands(commands: App, words: str) -> Iterator[str]:
    for name in sorted(each for each in commands if not each.startswith("-")):
        command = commands[name]
        below = [each for each in command if not each.startswith("-")]
        if below:
            yield from _commands(command, f"{words} {name}")
            continue
        options = sorted(
            option
            for argument in command.assemble_argument_collection()
            for option in argument.names
            if option != "--session"  # what the options of every command amount to
        )
        yield f"{words} {name} {' '.join(options)}".rstrip()


class _Meter:
    """Notes the instruments that are made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def create_counter(self, name: str, unit: str, **_: Any) -> None:
        self.made.append(f"{name} counter {unit}")

    def create_histogram(self, name: str, unit: str, **_: Any) -> None:
        self.made.append(f"{name} histogram {unit}")


def _otel() -> list[str]:
    meter: Any = _Meter()
    observe.otel_metrics(meter)
    views = [f"swapstore.view.{name} gauge {unit}" for name, unit, *_ in observe._OF_VIEWS]
    return sorted([*meter.made, *views])


def _prometheus() -> list[str]:
    made = vars(observe.prometheus_metrics(prometheus_client.CollectorRegistry())).values()
    instruments = [f"{each._name} {each._type} {' '.join(each._labelnames)}" for each in made]
    gauges = observe._ViewCollector(prometheus_client).collect()
    return sorted([*instruments, *(f"{each.name} {each.type} dataset" for each in gauges)])


def main() -> None:
    """Write the file anew."""
    GOLDEN.write_text(public(), "utf-8")


if __name__ == "__main__":
    main()
