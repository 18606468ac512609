"""Recompute a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("verify-report", place=148)
def verify_report(
    report: Annotated[Path, typer.Argument(help="A page that dure report wrote.", metavar="REPORT")],
    root: Annotated[
        Path | None,
        typer.Option(help="Where the runs of the page lie by now, when they were moved.", metavar="DIR"),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Recompute every number of a page from the records that it names, and name what was changed."""
    from dure import api
    from dure.reporting.verifying import verification_text

    found = api.verify_report(report, root=root)
    print_result(found.as_json(), verification_text(found), as_json=as_json)
    return 0 if found.is_true else 1
