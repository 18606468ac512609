"""List what lies in the outputs."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result

Folders = Annotated[
    list[str] | None,
    typer.Argument(help="Folders to look in; outputs/ when not given. Of a study, its runs.", metavar="DIR"),
]


@verb("runs", place=182)
def runs(
    folders: Folders = None,
    state: Annotated[
        str | None, typer.Option(help="Only those in this state, such as failed.", metavar="STATE")
    ] = None,
    sort: Annotated[
        str, typer.Option(help="By date, name, state, score, seconds or size.", metavar="KEY")
    ] = "date",
    as_json: options.Json = False,
) -> None:
    """List runs and studies: state, date, best score, time and size."""
    from dure import api
    from dure.archive.listing_table import listing_table

    found = api.list_runs(*(folders or ()), state=state, sort=sort)
    print_result(found.as_json(), listing_table(found), as_json=as_json)
