"""`python -m swapstore`: the command `swapstore`, for when it is not on PATH."""

from __future__ import annotations

import sys

from swapstore.cli import main

if __name__ == "__main__":
    sys.exit(main())
