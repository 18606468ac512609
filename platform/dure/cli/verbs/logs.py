"""Show what a job has printed."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_text


@verb("logs", place=170)
def logs(
    job: options.JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    address: options.Server = None,
) -> int:
    """Show what a job has printed."""
    from dure.jobs.finding import follow_job, job_log

    if not follow:
        print_text(job_log(job, address))
        return 0
    ended = follow_job(job, address, print_text)
    return 0 if ended.state == "succeeded" else 1
