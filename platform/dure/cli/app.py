"""The parser that verbs register with, and what holds for all of them."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
ORDER = (
    *("train", "batch", "sweep", "progressive", "crossval"),
    *("sweet-spot", "crossover", "unified-train", "unified-test", "unified-test-v1", "train-local"),
    *("validate", "verify-resume", "submit", "jobs", "logs", "stop"),
    *("predict", "score", "sample", "convert", "list", "schema"),
)
"""The verbs as the help lists them: what trains, what comes after, what checks and looks after it, tables."""


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    name="dure",
    cls=_InOrder,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Distributed experiments on Ray Train and Ray Tune for fine-tuning NLP models.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dure {importlib.metadata.version('dure')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and log every step in detail.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what dure and libraries log, during a run too.")
    ] = False,
    background: Annotated[
        bool,
        typer.Option("--background", help="Run on by itself, as a job of this machine; see `dure jobs`."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Set what holds for every verb."""
    logging.basicConfig(
        level=logging.INFO if verbose or debug else logging.ERROR, stream=sys.stderr, format=LOG_FORMAT
    )
    if debug:
        # Only of dure: libraries' debug logs hold the headers of requests, tokens included.
        for name in ("dure", "trainables"):
            logging.getLogger(name).setLevel(logging.DEBUG)
    if verbose or debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
