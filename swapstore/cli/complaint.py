"""What is said on stderr: one line, that begins with the command's name."""

from __future__ import annotations

import re
import sys

from swapstore.cli.human import printable

_CREDENTIALS = re.compile(r"://.*@")  # greedy: a password may hold anything, even an @
_PASSWORD = re.compile(r"password=[^&\s]*")


def complain(message: str) -> None:
    """Say what went wrong, without control characters and without the password of a URL."""
    line = _CREDENTIALS.sub("://…@", " ".join(message.split()))
    line = _PASSWORD.sub("password=…", line)
    print(f"swapstore: {printable(line)}", file=sys.stderr)
