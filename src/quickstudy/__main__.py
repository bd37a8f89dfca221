"""`python -m quickstudy`: the command line."""

import sys

from quickstudy.app.cli import main

sys.exit(main())
