"""`python -m swapstore.cli`: the command where the script `swapstore` is not on the path."""

import sys

from swapstore.cli import main

sys.exit(main())
