"""Compare runs and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result


@verb("compare", place=112)
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Folders of runs or studies, or patterns of such.", metavar="RUN"),
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            help="What to compare by; what chose the best checkpoints when not given.", metavar="NAME"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the tables, the curves and the record.", metavar="DIR"
        ),
    ] = None,
    force: options.Force = False,
    figures: options.Figures = None,
    as_json: options.Json = False,
) -> None:
    """Compare runs: what differs, scores that may be compared, cost, and the same test rows one by one."""
    from dure import api
    from dure.archive.comparison_table import comparison_table
    from dure.errors import UserError
    from dure.reporting.figures import shown_path
    from dure.reporting.plots import figures_beside

    if figures is not None and output is None:
        raise UserError(
            "no picture is written without a folder for it", where="--figures", hint="add --output DIR"
        )
    with figures_beside(figures):
        compared = api.compare(*runs, metric=metric, output=output, force=force)
    if output is not None:
        notify(f"written: comparison.json, comparison.txt and comparison.png in {shown_path(output)}")
    print_result(compared.as_json(), comparison_table(compared), as_json=as_json)
