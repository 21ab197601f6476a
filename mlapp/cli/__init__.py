"""The `mlapp` command."""

from mlapp.cli.main import main

__all__ = ["main"]
