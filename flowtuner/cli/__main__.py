"""`python -m flowtuner.cli` is the `flowtuner` command."""

import sys

from flowtuner.cli.main import main

sys.exit(main())
