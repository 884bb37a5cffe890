"""The command's grammar: which commands there are, and the options that all of them take."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Group, Parameter

from swapstore.cli.demo import demo
from swapstore.cli.doctor import doctor
from swapstore.cli.following import follow
from swapstore.cli.freshness import status
from swapstore.cli.fsck import repair, verify
from swapstore.cli.importing import app as importing
from swapstore.cli.operate import confirm, pin, rollback, unpin
from swapstore.cli.produce import STDIN, publish
from swapstore.cli.read import latest, read
from swapstore.cli.session import Session
from swapstore.cli.status import datasets, history
from swapstore.cli.upkeep import prune

HELP = """\
Publish versions of something to Redis, Valkey or SQLite; readers never see half of one.

On a terminal commands print tables. Piped they print JSON;
latest and read print the payload, byte for byte.

Exit codes:
  0  done
  1  not found, or nothing published
  2  bad usage or bad input
  3  refused: a conflict, or an id that is taken
  4  the store is unavailable; try again later
  5  what is stored is damaged
  6  stale: status --max-age
  7  doctor found a problem
"""

NO_COMMAND = 2

EVERYWHERE = Group("Options of every command", sort_key=100)

# The version flag is a command of its own: `read` has an option of that name, and some releases of the
# parser would let the flag win.
app = App(name="swapstore", help=HELP, help_format="plaintext", version_flags=[])

for _command in (
    publish, latest, read, history, follow, datasets, status, confirm, pin, unpin, rollback, prune,
    verify, repair, doctor, demo,
):  # fmt: skip
    app.command(_command)
app.command(importing)


@app.command(name="--version")
def version() -> None:
    """Print the version of swapstore."""
    from importlib import metadata  # noqa: PLC0415 - it takes as long to import as the rest of this file

    print(metadata.version("swapstore"))


@app.meta.default
def _start(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    url: Annotated[
        str | None,
        Parameter(
            group=EVERYWHERE,
            help="The store: redis://, rediss://, unix://, https:// or sqlite:///path.db. Unless given: "
            "$SWAPSTORE_URL, $UPSTASH_REDIS_REST_URL, or else a SQLite file in your data directory.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        Parameter(
            group=EVERYWHERE,
            help="The first part of every key. Unless given: $SWAPSTORE_NAMESPACE, or else swapstore.",
        ),
    ] = None,
    single_writer: Annotated[
        bool,
        Parameter(
            group=EVERYWHERE,
            negative="",
            show_default=False,
            help="Promise that one process at a time publishes: for endpoints that commit no other way.",
        ),
    ] = False,
    json: Annotated[
        bool,
        Parameter(
            group=EVERYWHERE,
            negative="",
            show_default=False,
            help="Print on a terminal what is printed when piped.",
        ),
    ] = False,
) -> None:
    """Read the options of every command, wherever they stand, and run the command with them."""
    if not tokens:
        app.help_print([])
        sys.exit(NO_COMMAND)
    command, bound, injected = app.parse_args(
        [STDIN if word == "-" else word for word in tokens], exit_on_error=False, print_error=False
    )
    session = Session(url=url, namespace_option=namespace, single_writer=single_writer, json=json)
    command(*bound.args, **bound.kwargs, **({"session": session} if "session" in injected else {}))
