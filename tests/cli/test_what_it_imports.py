"""What the start of a command imports: what that command needs, and nothing of the others."""

from __future__ import annotations

from pathlib import Path

import swapstore
from swapstore import cli
from tests.unit.test_imports import HEAVY, OPTIONAL, imported


def test_a_command_imports_no_other_command(tmp_path: Path) -> None:
    """`swapstore latest` in a shell script waits for what only `import`, `serve` or `doctor` need."""
    swapstore.connect(f"sqlite:///{tmp_path}/store.db").publish("mena", 1)
    arguments = ["--url", f"sqlite:///{tmp_path}/store.db", "latest", "mena"]
    code = f"from swapstore.cli import main\nassert main({arguments}) == 0\nprint()"
    others = {path.stem for path in Path(cli.__file__).parent.glob("[a-z]*.py")}
    others -= {"app", "arguments", "output", "read", "session", "status"}
    commands = {f"swapstore.cli.{name}" for name in others}
    unwanted = OPTIONAL | (HEAVY - {"swapstore.cli", "cyclopts"}) | commands | {"asyncio"}
    assert imported(code, of=unwanted) == set()
