"""Show the jobs."""

from __future__ import annotations

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("jobs", place=160)
def jobs(address: options.Server = None, as_json: options.Json = False) -> None:
    """Show the jobs of a cluster, and what runs in the background of this machine."""
    from dure.jobs.finding import all_jobs
    from dure.jobs.table import jobs_table

    found = [job.as_record() for job in all_jobs(address)]
    print_result({"jobs": found}, jobs_table(found), as_json=as_json)
