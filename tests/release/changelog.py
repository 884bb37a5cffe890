"""The notes of a release are its section of the changelog."""

from __future__ import annotations

import re

import swapstore
from tests.release.building import ROOT

BLOB = "https://github.com/swapstore/swapstore/blob"


def notes(tag: str, text: str | None = None) -> str:
    """Return what the changelog says of a version, with links that work anywhere.

    Refuses a tag that is not the version of the package, and a version that has no dated section.
    """
    if tag != f"v{swapstore.__version__}":
        raise SystemExit(f"the tag is {tag}, and the version {swapstore.__version__}")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8") if text is None else text
    heading = rf"^## \[{re.escape(swapstore.__version__)}\] - \d{{4}}-\d\d-\d\d$"
    section = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if section is None:
        raise SystemExit(f"CHANGELOG.md has no section '## [{swapstore.__version__}] - YYYY-MM-DD'")
    return re.sub(r"\]\((?!\w+:|#)([^)]+)\)", rf"]({BLOB}/{tag}/\1)", section[1]).strip()
