"""`swapstore serve`: the page and the HTTP API of a store."""

from __future__ import annotations

import os
import signal
from types import ModuleType
from typing import Annotated

from cyclopts import Parameter

from swapstore.cli import ExitCode, output
from swapstore.cli.arguments import to_whole
from swapstore.cli.health import bounds_of
from swapstore.cli.session import CurrentSession, Session
from swapstore.connect import DEFAULT_MAX_PAYLOAD
from swapstore.errors import InvalidInput
from swapstore.store import AsyncStore

TOKEN_VARIABLE, READ_TOKEN_VARIABLE = "SWAPSTORE_TOKEN", "SWAPSTORE_READ_TOKEN"
EXTRA = {"h11", "jinja2", "starlette", "uvicorn"}


def serve(
    *datasets: Annotated[
        str,
        Parameter(
            help="A dataset that must exist; with =AGE, how long ago a producer published or confirmed, at "
            "most: mena=12h. The page shows which are late. All others are served as well."
        ),
    ],
    host: Annotated[
        str, Parameter(help="The address to listen on. Default: only this machine reaches it.")
    ] = "127.0.0.1",
    port: Annotated[
        int, Parameter(converter=to_whole, help="The port to listen on; 0: any that is free.")
    ] = 8000,
    path: Annotated[
        str,
        Parameter(
            show_default=False,
            help="Where the site begins, such as /data, if a proxy sends only what is below it. Default: /",
        ),
    ] = "",
    allow_writes: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help=f"Publish, pin, roll back and confirm for who shows the token of ${TOKEN_VARIABLE}.",
        ),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="A name that clients may use for this server, such as that of a proxy before it; may be "
            "repeated. Default: on this machine alone localhost, 127.0.0.1 and [::1], or else any.",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="An origin, such as https://example.com, whose pages may call the API; may be repeated.",
        ),
    ] = None,
    max_body: Annotated[
        int, Parameter(converter=to_whole, help="The size in bytes of the largest body that is read.")
    ] = DEFAULT_MAX_PAYLOAD,
    session: CurrentSession,
) -> ExitCode:
    """Serve a page for people and an HTTP API, until Ctrl-C.

    With $SWAPSTORE_READ_TOKEN readers have to show that token, or the one of
    $SWAPSTORE_TOKEN. Prints one line when it listens. Needs the extra [serve].

    For example:
      swapstore serve mena=12h europe=6h
      SWAPSTORE_TOKEN=… swapstore serve --allow-writes
    """
    token, read_token = os.environ.get(TOKEN_VARIABLE), os.environ.get(READ_TOKEN_VARIABLE)
    application, server = _extra()
    store = session.connect_async()
    app = application.app(
        store,
        bounds=bounds_of(datasets),
        allow_writes=allow_writes,
        token=token or None,
        read_token=read_token or None,
        max_body=max_body,
        cors=cors or (),
    )
    app = application.below(path, app)
    for name in allowed_host or ():
        if "/" in name:
            raise InvalidInput(f"--allowed-host is a name such as data.example.com, and not {name[:80]!r}")
    with server.listen(host, port) as listening:
        url, is_local = server.url_of(listening) + path.rstrip("/"), server.is_on_loopback(listening)

        def say_started() -> None:
            _say_where(session, store, url)
            if token and not allow_writes:
                output.complain(f"${TOKEN_VARIABLE} is set, and nobody can write without --allow-writes")
            if not (is_local or read_token):
                output.complain(
                    f"everybody who reaches {url} can read all datasets; to ask for a token, set "
                    f"${READ_TOKEN_VARIABLE}"
                )

        hosts = {*(allowed_host or ()), *server.LOOPBACK_NAMES} if is_local or allowed_host else None
        ended_by = server.run(app, store, listening, hosts=hosts, started=say_started)
    return ExitCode.INTERRUPTED if ended_by == signal.SIGINT else ExitCode.DONE


def _extra() -> tuple[ModuleType, ModuleType]:
    """Import what needs the extra, and what other commands do not wait for."""
    try:
        from swapstore.serve import application, server  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise InvalidInput("serve needs an extra: pip install 'swapstore[serve]'") from None
    return application, server


def _say_where(session: Session, store: AsyncStore, url: str) -> None:
    if session.human_readable:
        output.print_text(f"{url}  {store.where}, namespace {store.namespace!r}. Ctrl-C ends it.")
    else:
        output.write_json({"url": url, "store": store.where, "namespace": store.namespace})
