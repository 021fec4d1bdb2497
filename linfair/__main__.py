"""`python -m linfair` is the `linfair` command."""

from linfair.cli.main import main

raise SystemExit(main())
