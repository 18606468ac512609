"""The command line: verbs that parse, call one function of :mod:`dure.api` and print."""

from dure.cli.main import app, main

__all__ = ["app", "main"]
