"""Print JSON Schema."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_json


@verb("schema", place=230)
def schema(
    kind: Annotated[
        Literal["experiment", "study", "space", "profile"],
        typer.Argument(help="What the schema is of.", metavar="KIND"),
    ] = "experiment",
    family: Annotated[
        str | None,
        typer.Option(
            help="Print what task: takes, which columns are read and which metrics there are with this family.",
            metavar="MODULE",
            autocompletion=options.family_names,
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of an experiment, a study, a search space or a profile; or what a family takes."""
    from dure.cli.json_schema import family_schema, json_schema

    print_json(json_schema(kind) if family is None else family_schema(family))
