"""PyInstaller asks installed packages for their hooks, and finds here that the Lua scripts belong to it."""

from pathlib import Path


def hook_dirs() -> list[str]:
    """Return the directory of `hook-swapstore.py`. The entry point `pyinstaller40` names this function."""
    return [str(Path(__file__).parent)]
