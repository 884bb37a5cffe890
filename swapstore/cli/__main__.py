"""`python -m swapstore.cli`: the command, where no script is installed."""

import sys

from swapstore.cli import main

sys.exit(main())
