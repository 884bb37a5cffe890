"""The session of a run: which store the command works on, and for whom it prints."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import attrs
from cyclopts import Parameter

import swapstore
from swapstore import arguments
from swapstore.cli import output
from swapstore.connect import (
    DEFAULT_NAMESPACE,
    DEFAULT_PATIENCE_S,
    URL_VARIABLE,
    default_url,
    is_store_named,
    misspelt,
)
from swapstore.errors import InvalidInput
from swapstore.models import Retention
from swapstore.store import AsyncStore, Store

AnyStore = TypeVar("AnyStore", Store, AsyncStore)

NAMESPACE_VARIABLE = "SWAPSTORE_NAMESPACE"


@attrs.frozen(kw_only=True)
class Session:
    """The global options as given; None: the option was not given."""

    url: str | None = attrs.field(default=None, repr=False)
    namespace_option: str | None = None
    single_writer: bool = False
    patience: float = DEFAULT_PATIENCE_S
    json: bool = False

    @property
    def namespace(self) -> str:
        """The namespace of every command but the demo."""
        if self.namespace_option is not None:
            return self.namespace_option
        return os.environ.get(NAMESPACE_VARIABLE) or DEFAULT_NAMESPACE

    @property
    def human_readable(self) -> bool:
        """Whether to print tables: stdout is a terminal, and --json was not given."""
        return sys.stdout.isatty() and not self.json

    @property
    def shows_progress(self) -> bool:
        """Whether to draw progress on stderr. Stdout may be a file at the same time."""
        return sys.stderr.isatty() and not self.json

    @property
    def unnamed(self) -> bool:
        """Whether nobody named a store, so that the command works on the default one."""
        return self.url is None and not is_store_named()

    def connect(self, *, retention: Retention | None = None) -> Store:
        """Return a new store with its own connections and an empty cache."""
        return self._connected(swapstore.connect, retention=retention)

    def connect_async(self) -> AsyncStore:
        """Return a new store for asyncio."""
        from swapstore import aio  # noqa: PLC0415 - one command needs it

        return self._connected(aio.connect)

    def _connected(self, connect: Callable[..., AnyStore], **options: Any) -> AnyStore:
        namespace = arguments.namespace(self.namespace)
        try:
            return connect(
                default_url() if self.unnamed else self.url,
                namespace=namespace,
                single_writer=self.single_writer,
                patience=self.patience,
                **options,
            )
        except InvalidInput as error:
            if self.url is None:
                raise
            raise InvalidInput(f"--url cannot be used: {error}") from None

    def say_where(self, store: Store) -> None:
        """Say on stderr where a command has written, if nobody named a store: a typo would go unnoticed."""
        if self.unnamed:
            output.complain(
                f"written to the default store, {store.where}, because neither --url nor ${URL_VARIABLE} "
                f"names one{misspelt()}"
            )

    def command_line(self, *words: str) -> str:
        """Return a command line for the same store, ready to be copied. It never shows a password."""
        options: list[str] = []
        if self.url is not None:
            may_hold_a_password = "@" in self.url or "?" in self.url
            options += ["--url", "URL" if may_hold_a_password else self.url]
        if self.namespace_option is not None:
            options += ["--namespace", self.namespace_option]
        options += ["--single-writer"] if self.single_writer else []
        options += [] if self.patience == DEFAULT_PATIENCE_S else ["--patience", f"{self.patience:g}"]
        return shlex.join(["swapstore", *options, *words])


CurrentSession = Annotated[Session, Parameter(parse=False)]
"""The type of a command's `session` parameter: the application passes it, nobody types it."""
