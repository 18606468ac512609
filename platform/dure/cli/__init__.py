"""The command line: verbs that parse, call one function of :mod:`dure.api` and print."""

from dure.cli.app import app
from dure.cli.main import main

__all__ = ["app", "main"]
