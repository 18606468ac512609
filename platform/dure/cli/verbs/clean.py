"""Remove what is no longer needed."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("clean", place=184)
def clean(
    folders: Annotated[
        list[str] | None,
        typer.Argument(help="Folders of runs and studies; outputs/ when not given.", metavar="DIR"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else it is only shown.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show what may go, with sizes: checkpoints beside the best of finished runs, and what the cache no longer needs."""
    from dure import api
    from dure.archive.listing_table import cleaning_table

    found = api.clean(*(folders or ()), remove=yes)
    print_result(found.as_json(), cleaning_table(found), as_json=as_json)
    if found.left:
        raise typer.Exit(1)
