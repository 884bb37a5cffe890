"""The examples of the how-to about Upstash run, on the REST server of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.rest import RestServer

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-upstash.md"


def test_the_examples_work(rest: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who copies an example gets an error, or another result than the page shows."""
    monkeypatch.delenv("SWAPSTORE_URL", raising=False)
    monkeypatch.setenv("UPSTASH_REDIS_REST_URL", rest.url)
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", rest.token)
    blocks = re.findall(r"```py\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 5
    program = "\n".join(blocks).replace("https://name.upstash.io", rest.url).replace('"…"', repr(rest.token))
    exec(compile(program, str(PAGE), "exec"), {})  # noqa: S102 - the page is ours
