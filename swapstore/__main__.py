"""`python -m swapstore`: runs the command `swapstore`, also if it is not on PATH."""

from __future__ import annotations

import sys

from swapstore.cli import main

if __name__ == "__main__":
    sys.exit(main())
