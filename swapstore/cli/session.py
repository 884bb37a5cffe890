"""What every command is given: which store it works on, and whether a person looks at what it prints."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated

import attrs
from cyclopts import Parameter

import swapstore
from swapstore.connect import DEFAULT_NAMESPACE
from swapstore.errors import NotFound
from swapstore.models import Retention, Status
from swapstore.store import Store

NAMESPACE_VARIABLE = "SWAPSTORE_NAMESPACE"


@attrs.frozen(kw_only=True)
class Session:
    """The global options, as given: None means that the option was not."""

    url: str | None = attrs.field(default=None, repr=False)
    namespace_option: str | None = None
    single_writer: bool = False
    json: bool = False

    @property
    def namespace(self) -> str:
        """The namespace of every command but the demo."""
        if self.namespace_option is not None:
            return self.namespace_option
        return os.environ.get(NAMESPACE_VARIABLE) or DEFAULT_NAMESPACE

    @property
    def for_a_person(self) -> bool:
        """Whether to print tables: stdout is a terminal, and JSON was not asked for."""
        return sys.stdout.isatty() and not self.json

    def connect(self, *, retention: Retention | None = None) -> Store:
        """Return a new store, with its own connections and nothing remembered."""
        return swapstore.connect(
            self.url, namespace=self.namespace, single_writer=self.single_writer, retention=retention
        )

    def hint(self, *words: str) -> str:
        """Return a command line that works on the same store, for a person to copy."""
        options: list[str] = []
        if self.url is not None:
            holds_a_password = "@" in self.url or "?" in self.url
            options += ["--url", "URL" if holds_a_password else self.url]
        if self.namespace_option is not None:
            options += ["--namespace", self.namespace_option]
        options += ["--single-writer"] if self.single_writer else []
        return shlex.join(["swapstore", *options, *words])


Here = Annotated[Session, Parameter(parse=False)]
"""How a command asks for its session: it is handed over, not parsed."""


def status_of(store: Store, dataset: str) -> Status:
    """Return the dataset's status; `NotFound` when nothing is published."""
    status = store.status(dataset)
    if status is None:
        raise nothing_published(store, dataset)
    return status


def nothing_published(store: Store, dataset: str) -> NotFound:
    """Make the error that says so, and where it was looked for: most often it is the wrong place."""
    return NotFound(f"nothing is published in {store.where}, namespace {store.namespace!r}", dataset=dataset)
