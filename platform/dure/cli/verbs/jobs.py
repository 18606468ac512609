"""Jobs: a command sent to a cluster, what runs there and in the background, what it prints, and its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options
from dure.cli.app import VERBS, verb
from dure.cli.printing import notify, print_result, print_text, results
from dure.errors import UserError, nearest
from dure.signals import INTERRUPTED_CODE

if TYPE_CHECKING:
    from dure.jobs.job_server import JobServer


@verb("submit", place=150)
def submit(
    words: Annotated[
        list[str],
        typer.Argument(help="The command after --, from the verb on.", metavar="-- VERB", show_default=False),
    ],
    address: options.Server = None,
    working_dir: Annotated[
        Path, typer.Option(help="Folder that is sent, and in which the command runs.", metavar="DIR")
    ] = Path(),
    runtime_env: Annotated[
        Path | None,
        typer.Option(
            help="What travels, and the environment; cluster/runtime_env.yaml of the folder when not given.",
            metavar="FILE",
        ),
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results that all nodes see. When not given, `outputs` of the working folder if the cluster "
            "is on this machine, else ~/dure/outputs of the node.",
            metavar="DIR",
        ),
    ] = None,
    max_file_mb: Annotated[
        float, typer.Option(min=0, help="Leave larger files of the folder behind.", metavar="N")
    ] = 25,
    pass_env: Annotated[
        list[str] | None,
        typer.Option(
            help="Hand on this environment variable; whoever may list the cluster's jobs can read it.",
            metavar="NAME",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job to its end.")] = True,
) -> int:
    """Run a command as a job of a Ray cluster, and show what it prints: dure submit -- batch seven."""
    from dure.jobs import jobs as remote
    from dure.jobs.job_server import find_server

    _check_verb(words[0])
    server = find_server(address)
    prepared = remote.prepare(
        words,
        is_here=server.is_of_this_machine(),
        working_dir=working_dir,
        runtime_env=runtime_env,
        outputs=outputs,
        max_file_mb=max_file_mb,
        pass_env=pass_env or (),
        notify=notify,
    )
    job_id = remote.submit(server, prepared, notify=notify)
    at = "" if address is None else f" --address {address}"
    ways = f"\n  follow: dure logs {job_id} --follow{at}\n  stop:   dure stop {job_id}{at}"
    notify(f"job {job_id}{ways}")
    if not wait:
        print_result(remote.job(server, job_id).as_record(), job_id)
        return 0
    return _follow(server, job_id, ways)


def _follow(server: JobServer, job_id: str, ways: str) -> int:
    """Show what a job prints to its end, and return the exit code; Ctrl-C leaves the job alone."""
    from dure.jobs import jobs as remote

    try:
        job = remote.follow(server, job_id, _show)
    except KeyboardInterrupt:
        notify(f"job {job_id} goes on{ways}")
        sys.exit(INTERRUPTED_CODE)
    print_result(job.as_record(), f"job {job_id} {job.state} after {job.seconds:,.0f} s")
    return 0 if job.state == "succeeded" else 1


def _check_verb(name: str) -> None:
    known = [each for each in VERBS if each != "submit"]
    if name not in known:
        raise UserError(
            f"'{name}' is no verb that a job can run",
            where="dure submit",
            expected="dure submit [options] -- VERB …",
            hint=nearest(name, known),
        )


@verb("jobs", place=160)
def jobs(address: options.Server = None) -> None:
    """Show the jobs of a cluster, and what runs in the background of this machine."""
    from dure.jobs.finding import all_jobs, jobs_table

    found = all_jobs(address)
    print_result({"jobs": [job.as_record() for job in found]}, jobs_table(found))


@verb("logs", place=170, has_json=False)
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


@verb("stop", place=180)
def stop(
    job: Annotated[
        str,
        typer.Argument(
            help="Name of a job, or folder of a command that runs with --background.", metavar="ID|DIR"
        ),
    ],
    address: options.Server = None,
) -> int:
    """Stop a job, or what runs in a folder in the background, cleanly; nothing that is finished is lost."""
    from dure.jobs import background_records
    from dure.jobs.finding import stop_job

    if "/" in job or Path(job).exists():
        pid = background_records.stop(Path(job))
        print_result({"pid": pid, "path": job}, f"process {pid} has ended")
        return 0
    ended = stop_job(job, address)
    print_result(ended.as_record(), f"job {ended.id} {ended.state}")
    return 0


def run_in_background(words: Sequence[str]) -> int:
    """Run a command as a job of a cluster that dure keeps on this machine; what ``--background`` does.

    Returns once the command works in its folder, with the exit code of the terminal's command.
    """
    from dure.jobs.starting import start

    name = next((word for word in words if not word.startswith("-")), "")
    able = [each for each, known in VERBS.items() if known.background]
    if name not in able:
        raise UserError(
            f"'{name}' runs in the terminal only",
            where="--background",
            expected=f"one of: {', '.join(able)}",
        )
    started = start(words)
    job, holder = started.job, started.holder
    if holder is None:
        # It ended before it began to work: what it said, after what Ray says of every job, is the answer.
        said = started.log.read_text(encoding="utf-8", errors="replace")
        _show(said.partition("Running entrypoint for job")[2].partition("\n")[2] or said)
        return 1 if job.exit_code is None else job.exit_code
    said = (
        f"job {job.id}, process {holder.pid}, works in {holder.path}\n  follow: dure logs {job.id} --follow\n"
        f"  log:    {started.log}\n  stop:   dure stop {job.id}"
    )
    with results(as_json="--json" in words):
        print_result({"job": job.id, "pid": holder.pid, "path": holder.path, "log": str(started.log)}, said)
    return 0


def _show(text: str) -> None:
    """Show what a job has printed."""
    print(text, end="", file=sys.stderr, flush=True)
