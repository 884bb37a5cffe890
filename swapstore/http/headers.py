"""What a client asks for in the headers of its request, as RFC 9110 defines them.

Nothing here raises: a header that cannot be parsed, or a part of one, counts as not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import attrs

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')  # without W/: a weak comparison ignores it
_CODING = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*"
    r"(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)


@attrs.frozen
class Asked:
    """The headers of a request that choose its response. None: it was not sent."""

    none_match: str | None
    modified_since: str | None
    accept_encoding: str | None

    @classmethod
    def of(cls, headers: Headers) -> Asked:
        """Pick them from the headers of a request. A header that was sent several times is one list."""
        found: dict[str, str] = {}
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            key = name.lower()
            found[key] = f"{found[key]}, {value}" if key in found else value
        return cls(found.get("if-none-match"), found.get("if-modified-since"), found.get("accept-encoding"))

    @property
    def anything(self) -> bool:
        """Whether `If-None-Match` is `*`: the client has a response, and any will do."""
        return self.none_match is not None and self.none_match.strip() == "*"

    @property
    def tags(self) -> list[str]:
        """The entity tags of `If-None-Match`, quotes included, without the mark of weak ones."""
        return _TAG.findall(self.none_match or "")

    @property
    def takes_zstd(self) -> bool:
        """Whether `Accept-Encoding` names zstd, and does not prefer that nothing is encoded.

        `*` does not name it: a client that takes what comes is not known to decode it.
        """
        weights = {}
        for each in (self.accept_encoding or "").split(","):
            coding = _CODING.fullmatch(each)
            if coding is not None:
                weights[coding[1].lower()] = float(coding[2] or 1)
        zstd = weights.get("zstd", 0.0)
        return zstd > 0 and zstd >= weights.get("identity", 0.0)
