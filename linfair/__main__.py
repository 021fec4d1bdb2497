"""`python -m linfair` is the `linfair` command."""

import sys

from linfair.cli import main

sys.exit(main())
