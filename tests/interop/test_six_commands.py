"""The producers of docs/how-to/from-six-commands-to-publish.md over REST: the old one and the new one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import swapstore
from tests.support.rest import RestServer
from tests.support.valkey import Server

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "from-six-commands-to-publish.md"
IN_DOCS = "redis://localhost:6379/2"
TOO_LARGE = "ERR max request size exceeded. Limit: 10485760 bytes, Actual: 11245919 bytes"


@pytest.fixture
def page(valkey: Server) -> Iterator[dict[str, Any]]:
    """Run the page's Python, and return the names that it defines."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    names: dict[str, Any] = {}
    exec(compile(code.replace(IN_DOCS, valkey.url), PAGE, "exec"), names)  # noqa: S102 - it is our own page
    with names["old"], names["store"]:
        names["old"].flushall()
        yield names


def test_the_old_producer_over_rest(rest: RestServer, page: dict[str, Any]) -> None:
    """The page warns of something that does not happen, or shows a producer that never worked."""
    old = page["old"]
    arguments = (rest.url, rest.token, "mena")
    done = page["publish_over_rest"](*arguments, "mena-1", page["now"], {"regime": "calm"})
    assert [list(item) for item in done] == [["result"]] * 6
    rest.switches.fail(2, TOO_LARGE)
    done = page["publish_over_rest"](*arguments, "mena-2", page["now"] + 1, {"regime": "tense"})
    assert done[1] == {"error": TOO_LARGE}
    assert old.get("intel:snapshot:v1:mena:latest") == b"mena-2"
    assert old.get("intel:snapshot-by-id:v1:mena-2") is None, "the pointer points at nothing"


def test_the_new_producer_over_rest(rest: RestServer, page: dict[str, Any]) -> None:
    """What the page promises holds on Redis alone, and not over REST."""
    now, publish = page["now"], page["publish"]
    with page["connect"](rest.url, token=rest.token) as store:
        publish(store, "mena", "mena-1", now, {"regime": "calm"})
        rest.switches.failing = {"SET": TOO_LARGE}
        with pytest.raises(swapstore.SwapstoreError):
            publish(store, "mena", "mena-2", now + 1, {"regime": "tense"})
        rest.switches.failing = {}
        assert store.read_latest("mena").id == "mena-1"
        rest.switches.drop_after(when="EVALSHA")
        sent = rest.count("EVALSHA")
        assert publish(store, "mena", "mena-2", now + 1, {"regime": "tense"}).is_latest
        assert rest.count("EVALSHA") > sent, "so a reply was lost"
        assert [row.id for row in store.history("mena")] == ["mena-2", "mena-1"]
