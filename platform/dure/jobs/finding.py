"""Jobs, wherever they are: in the cluster that is named, in one of this machine, or in our records."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from rich.console import RenderableType

from dure.errors import UserError, counted
from dure.jobs import jobs as remote
from dure.jobs.background_records import records
from dure.jobs.job_server import JobServer, find_server
from dure.jobs.jobs import ENDED, Job
from dure.reporting.columns import FittedTable, column
from dure.secrets import redacted

_STYLES = {"failed": "bold red", "running": "green", "stopped": "yellow"}
_SHORTEST_COMMAND = 20


def all_jobs(address: str | None = None) -> list[Job]:
    """Return the jobs that can be seen from here, the latest last.

    Without an address those of the default cluster, and all background jobs.

    Raises:
        UserError: The cluster that is named does not answer.
    """
    found = {} if address is not None else {each.id: each for each in records().jobs()}
    for _, seen in _seen(address):
        found.update({each.id: each for each in seen})
    return sorted(found.values(), key=lambda each: (each.started or "", each.id))


def jobs_table(jobs: Sequence[Job]) -> RenderableType:
    """Return jobs as a table that fits itself to the terminal."""
    if not jobs:
        return "no jobs"
    columns = [
        column("job", (job.id for job in jobs), is_text=True),
        column("state", (job.state for job in jobs), is_text=True, styles=_STYLES),
        column("command", (job.command for job in jobs), is_text=True, shortest=_SHORTEST_COMMAND),
        column("started", (_local_time(job.started) for job in jobs), rank=2, is_text=True),
        column("seconds", (f"{job.seconds:,.0f}" for job in jobs), rank=1),
        column("cluster", (job.server for job in jobs), rank=3, is_text=True),
    ]
    return FittedTable(columns, counted(len(jobs), "job"))


def job_log(job_id: str, address: str | None = None) -> str:
    """Return what a job has printed until now, without secrets.

    Raises:
        UserError: There is no such job.
    """
    server = _server_of(job_id, address)
    if server is not None:
        return remote.log(server, job_id)
    return redacted(records().log(job_id).read_text(encoding="utf-8", errors="replace"))


def follow_job(job_id: str, address: str | None, write: Callable[[str], None]) -> Job:
    """Hand on what a job prints until it has ended, and return how it ended.

    Raises:
        UserError: There is no such job.
        RunError: The connection breaks again and again.
    """
    server = _server_of(job_id, address)
    if server is not None:
        return remote.follow(server, job_id, write)
    write(job_log(job_id, address))
    return _recorded(job_id)


def stop_job(job_id: str, address: str | None = None) -> Job:
    """Stop a job cleanly, wait for its end, and return how it ended.

    Raises:
        UserError: There is no such job.
        RunError: It does not end.
    """
    server = _server_of(job_id, address)
    return _recorded(job_id) if server is None else remote.stop(server, job_id)


def _server_of(job_id: str, address: str | None) -> JobServer | None:
    """Return the server that knows a job, or None when only our records do."""
    known: list[Job] = []
    for server, seen in _seen(address):
        if any(each.id == job_id for each in seen):
            return server
        known += seen
    if address is None:
        known += records().jobs()
        if any(each.id == job_id for each in known):
            return None
    raise remote.no_job(job_id, known, "dure jobs" if address is None else f"--address {address}")


def _recorded(job_id: str) -> Job:
    found = records().job(job_id)
    if found is None or found.state not in ENDED:
        raise UserError("this job began or ended just now", where=job_id, hint="the same command once more")
    return found


def _seen(address: str | None) -> Iterator[tuple[JobServer, list[Job]]]:
    """Give the servers to ask, with their jobs: the one that is named; or that of background jobs and the default one."""
    keeper = records().keeper() if address is None else None
    if keeper is not None:
        server = find_server(keeper.url)
        yield server, remote.jobs(server)
    try:
        server = find_server(address)
        seen = remote.jobs(server)
    except UserError:
        # One that is named is meant; one that was started on this machine some time ago may be gone.
        if address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS"):
            raise
        return
    yield server, seen


def _local_time(moment: str | None) -> str:
    return "" if moment is None else f"{datetime.fromisoformat(moment).astimezone():%m-%d %H:%M}"
