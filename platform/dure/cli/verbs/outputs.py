"""What lies in the outputs: its list, its pages, its comparison, and what may go."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result

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
) -> None:
    """List runs and studies: state, date, best score, time and size."""
    from dure import api
    from dure.archive.listing import listing_table

    found = api.list_runs(*(folders or ()), state=state, sort=sort)
    print_result(found.as_json(), listing_table(found))


@verb("clean", place=184)
def clean(
    folders: Annotated[
        list[str] | None,
        typer.Argument(help="Folders of runs and studies; outputs/ when not given.", metavar="DIR"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else it is only shown.")] = False,
) -> None:
    """Show what may go, with sizes: checkpoints beside the best of finished runs, and what the cache no longer needs."""
    from dure import api
    from dure.archive.cleaning import cleaning_table

    found = api.clean(*(folders or ()), remove=yes)
    print_result(found.as_json(), cleaning_table(found))
    if found.left:
        raise typer.Exit(1)


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
) -> None:
    """Compare runs: what differs, scores that may be compared, cost, and the same test rows one by one."""
    from dure import api
    from dure.archive.comparison_table import comparison_table
    from dure.errors import UserError, shown_path
    from dure.reporting.plots import figures_beside

    if figures is not None and output is None:
        raise UserError(
            "no picture is written without a folder for it", where="--figures", hint="add --output DIR"
        )
    with figures_beside(figures):
        compared = api.compare(*runs, metric=metric, output=output, force=force)
    if output is not None:
        notify(f"written: comparison.json, comparison.txt and comparison.png in {shown_path(output)}")
    print_result(compared.as_json(), comparison_table(compared))


@verb("report", place=135)
def report(
    paths: Annotated[list[Path], typer.Argument(help="Folders of runs or studies.", metavar="PATH…")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; report.html in the folder, or in the working folder for several.",
            metavar="FILE",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    force: options.Force = False,
) -> None:
    """Write one self-contained page of runs and studies: verdict, figures, pictures, lineage."""
    from dure import api

    file = api.report(paths, output, force=force)
    print_result({"report": str(file), "bytes": file.stat().st_size}, str(file))
    if show and not webbrowser.open(file.resolve().as_uri()):
        notify(f"no browser is found here; open {file}")


@verb("verify-report", place=148)
def verify_report(
    report: Annotated[Path, typer.Argument(help="A page that dure report wrote.", metavar="REPORT")],
    root: Annotated[
        Path | None,
        typer.Option(help="Where the runs of the page lie by now, when they were moved.", metavar="DIR"),
    ] = None,
) -> int:
    """Recompute every number of a page from the records that it names, and name what was changed."""
    from dure import api
    from dure.reporting.verifying import verification_text

    found = api.verify_report(report, root=root)
    print_result(found.as_json(), verification_text(found))
    return 0 if found.is_true else 1
