"""Stop a job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("stop", place=180)
def stop(
    job: Annotated[
        str,
        typer.Argument(
            help="Name of a job, or folder of a command that runs with --background.", metavar="ID|DIR"
        ),
    ],
    address: options.Server = None,
    as_json: options.Json = False,
) -> int:
    """Stop a job, or what runs in a folder in the background, cleanly; nothing that is finished is lost."""
    from dure.jobs import background_folders as folders
    from dure.jobs.finding import stop_job

    if "/" in job or Path(job).exists():
        pid = folders.stop(Path(job))
        print_result({"pid": pid, "path": job}, f"process {pid} has ended", as_json=as_json)
        return 0
    ended = stop_job(job, address)
    print_result(ended.as_record(), f"job {ended.id} {ended.state}", as_json=as_json)
    return 0
