"""The application: its commands, the options that all of them take, and how a run ends."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

import swapstore
from swapstore.cli import ExitCode, output
from swapstore.cli.arguments import STDIN, to_seconds
from swapstore.cli.session import Session
from swapstore.connect import DEFAULT_PATIENCE_S
from swapstore.errors import (
    Damaged,
    InvalidInput,
    Misconfigured,
    NotFound,
    Refused,
    SwapstoreError,
    TooStale,
    Unavailable,
    UnderReplicated,
)

HELP = """\
Atomic, versioned snapshots on Redis, Valkey, Upstash or SQLite.

Readers get the new version or the previous one, never a mix.

On a terminal, commands print tables. Piped, they print JSON;
latest and read print the payload, byte for byte.

Exit codes:
  0  done
  1  not found, or nothing published
  2  bad usage or bad input
  3  refused: a conflict, or the id is taken
  4  the store is unavailable, or full; try again later
  5  stored data is damaged
  6  stale: status --max-age; stale or too small: health
  7  doctor found a problem
  8  the store refuses the credentials, or cannot do this;
     waiting does not help
  9  published, but on too few replicas: publish --replicas
  10 there are changes: diff --exit-code

For example:
  swapstore publish mena snapshot.json
  swapstore latest mena > mena.json
"""

ERROR_CODES: dict[type[SwapstoreError], ExitCode] = {
    NotFound: ExitCode.NOT_FOUND,
    InvalidInput: ExitCode.USAGE,
    Refused: ExitCode.REFUSED,
    Unavailable: ExitCode.UNAVAILABLE,
    Misconfigured: ExitCode.MISCONFIGURED,
    Damaged: ExitCode.DAMAGED,
    UnderReplicated: ExitCode.UNDER_REPLICATED,
    TooStale: ExitCode.STALE,
}

GLOBAL_OPTIONS = Group("Options of every command", sort_key=100)

# `--version` is a command of its own, because `read` has an option of that name and some releases of
# cyclopts would take it for the version flag.
app = App(name="swapstore", help=HELP, help_format="plaintext", version_flags=[])

# Each is imported when it is called: `swapstore latest` need not wait for what others need.
for _command in (
    "produce:publish", "produce:publish_group", "produce:published", "read:latest", "read:read",
    "read:history", "diff:diff", "read:follow", "status:datasets", "status:status", "health:health",
    "produce:confirm", "operate:pin", "operate:unpin", "operate:rollback", "operate:prune",
    "operate:recompress", "removing:erase", "removing:drop", "fsck:verify", "fsck:repair", "operate:backup",
    "operate:restore", "copying:copy", "operate:doctor", "serve:serve", "demo:demo",
):  # fmt: skip
    app.command(f"swapstore.cli.{_command}")
app.command("swapstore.cli.importing:app", name="import")


@app.command(name="--version")
def version() -> None:
    """Print the version of swapstore."""
    print(swapstore.__version__)


@app.command
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Your shell.")], /) -> None:
    """Print the shell's completion script: commands and options on the Tab key.

    For example, in ~/.bashrc:
      eval "$(swapstore completion bash)"
    """
    _import_all()
    print(app.meta.generate_completion(prog_name="swapstore", shell=shell))


@app.meta.default
def _start(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    url: Annotated[
        str | None,
        Parameter(
            group=GLOBAL_OPTIONS,
            help="The store: redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, https:// or "
            "sqlite:///path.db. Default: $SWAPSTORE_URL, then $UPSTASH_REDIS_REST_URL, then a SQLite file in "
            "your data directory.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        Parameter(
            group=GLOBAL_OPTIONS,
            help="The first part of every key. Default: $SWAPSTORE_NAMESPACE, then swapstore.",
        ),
    ] = None,
    single_writer: Annotated[
        bool,
        Parameter(
            group=GLOBAL_OPTIONS,
            negative="",
            show_default=False,
            help="Promise that one process at a time publishes. Only for endpoints that have neither scripts "
            "nor compare-and-set.",
        ),
    ] = False,
    patience: Annotated[
        float,
        Parameter(
            group=GLOBAL_OPTIONS,
            converter=to_seconds,
            help="How many seconds to go on trying while a Redis or Valkey server cannot be reached; 0: fail "
            "at once.",
        ),
    ] = DEFAULT_PATIENCE_S,
    json: Annotated[
        bool,
        Parameter(
            group=GLOBAL_OPTIONS,
            negative="",
            show_default=False,
            help="Print on a terminal what is printed when piped.",
        ),
    ] = False,
) -> ExitCode:
    """Parse the global options, which may stand before or after the command's name, and run the command."""
    if not tokens:
        app.help_print([])
        return ExitCode.USAGE
    command, bound, injected = app.parse_args(
        [STDIN if word == "-" else word for word in tokens], exit_on_error=False, print_error=False
    )
    session = Session(
        url=url, namespace_option=namespace, single_writer=single_writer, patience=patience, json=json
    )
    result = command(*bound.args, **bound.kwargs, **({"session": session} if "session" in injected else {}))
    return result if isinstance(result, ExitCode) else ExitCode.DONE


def run(arguments: Sequence[str]) -> ExitCode:
    """Run one command line. An error becomes one line on stderr and an exit code."""
    _replace_closed_streams()
    log, handler = logging.getLogger("swapstore"), output.LogToStderr(logging.WARNING)
    log.addHandler(handler)
    try:
        return _run(arguments)
    finally:
        log.removeHandler(handler)


def _import_all() -> None:
    """Import every command, for what says something about each of them."""
    for name in app:
        app[name]


def _run(arguments: Sequence[str]) -> ExitCode:
    if not set(arguments) & set(app) or set(arguments) & set(app.help_flags):
        _import_all()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a question mark for what the terminal cannot show
    try:
        result = app.meta(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()  # a pipe without a reader must be noticed here, not while the interpreter exits
    except CycloptsError as error:
        output.complain(_usage(error))
        return ExitCode.USAGE
    except BrokenPipeError:
        _discard_stdout()
        return ExitCode.NO_READER
    except SwapstoreError as error:
        output.complain(str(error))
        return next(code for group, code in ERROR_CODES.items() if isinstance(error, group))
    except OSError as error:  # only stdout is left: files and stores raise errors of swapstore
        _discard_stdout()
        output.complain(f"the output cannot be written: {error.strerror}")
        return ExitCode.USAGE
    return result if isinstance(result, ExitCode) else ExitCode.DONE


def _usage(error: CycloptsError) -> str:
    command = " ".join(["swapstore", *(error.command_chain or ())])
    if isinstance(error, UnusedCliTokensError):
        return f"too many arguments: {' '.join(error.unused_tokens or ())}. See: {command} --help"
    return f"{error} See: {command} --help"


def _replace_closed_streams() -> None:
    """Open the null device in place of a closed stream (`>&-`, as in some cron jobs), so that print works."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - until exit


def _discard_stdout() -> None:
    """Discard buffered output, or the interpreter would fail to write it once more while it exits."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
