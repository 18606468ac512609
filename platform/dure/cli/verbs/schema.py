"""Print JSON Schema."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dure.cli.app import verb
from dure.cli.printing import print_json


@verb("schema", place=230)
def schema(
    kind: Annotated[
        Literal["experiment", "study", "space", "profile"],
        typer.Argument(help="Of what.", metavar="KIND"),
    ] = "experiment",
) -> None:
    """Print the JSON Schema of an experiment, a study, a search space or a profile."""
    from dure.cli.json_schema import json_schema

    print_json(json_schema(kind))
