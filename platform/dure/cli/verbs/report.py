"""Write what runs and studies came to as one page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result


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
    as_json: options.Json = False,
) -> None:
    """Write one self-contained page of runs and studies: verdict, figures, pictures, lineage."""
    from dure import api

    file = api.report(paths, output, force=force)
    print_result({"report": str(file), "bytes": file.stat().st_size}, str(file), as_json=as_json)
    if show and not webbrowser.open(file.resolve().as_uri()):
        notify(f"no browser is found here; open {file}")
