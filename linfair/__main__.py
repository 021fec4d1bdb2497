"""`python -m linfair` is the `linfair` command."""

import sys

from linfair.cli.main import main

sys.exit(main())
