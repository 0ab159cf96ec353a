"""`python -m autolr`, the same as the command `autolr`."""

import sys

from autolr.cli import main

sys.exit(main())
