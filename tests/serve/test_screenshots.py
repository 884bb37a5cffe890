"""The pictures of the page in the README and docs/."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.screenshots import SHOTS, take


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
def test_each_picture_can_be_taken_again(tmp_path: Path) -> None:
    """After the page has changed, nobody can show what it looks like now."""
    take(SHOTS, tmp_path)
    for shot in SHOTS:
        picture = (tmp_path / f"{shot.name}.png").read_bytes()
        assert struct.unpack(">8s8xII", picture[:24]) == (b"\x89PNG\r\n\x1a\n", shot.width, shot.height)
