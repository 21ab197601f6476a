"""Run `python -m mlapp.cli`."""

import sys

from mlapp.cli import main

if __name__ == "__main__":
    sys.exit(main())
