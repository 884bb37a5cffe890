"""The one place that knows key names.

All keys of a dataset share the hash tag `{<dataset>}`, so that they live in one cluster slot. Names and
ids are checked elsewhere: none can hold a brace or a control character.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Keys:
    """The keys of one namespace."""

    namespace: str

    def manifest(self, dataset: str) -> str:
        """The commit point."""
        return f"{self.namespace}:manifest:{{{dataset}}}"

    def id(self, dataset: str, id: str) -> str:  # noqa: A002 - the design's term
        """The record that holds a snapshot's entry and payload."""
        return f"{self.namespace}:id:{{{dataset}}}:{id}"

    def ts(self, dataset: str, ts: int, id: str) -> str:  # noqa: A002
        """The record that holds a snapshot's entry alone, by time."""
        return f"{self.namespace}:ts:{{{dataset}}}:{ts}:{id}"

    def page(self, dataset: str, name: str) -> str:
        """A page of sealed rows or references; its name is `<epoch>.<first>-<last>`."""
        return f"{self.namespace}:page:{{{dataset}}}:{name}"

    def live(self, dataset: str) -> str:
        """The live view."""
        return f"{self.namespace}:live:{{{dataset}}}"

    def datasets(self) -> str:
        """The set of names ever published: a hint for listing, never trusted alone."""
        return f"{self.namespace}:datasets"
