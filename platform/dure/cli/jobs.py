"""Verbs for what runs elsewhere or by itself: submit, jobs, logs and stop; and what --background does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import app
from dure.cli.printing import print_result, results_only_on_stdout, tell
from dure.errors import UserError, nearest

BACKGROUND_VERBS = (
    *("train", "batch", "sweep", "progressive", "crossval"),
    *("unified-train", "unified-test", "unified-test-v1", "train-local"),
)
"""What can run on by itself: whatever works in a folder of its own."""
_INTERRUPTED_CODE = 130

Server = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Dashboard (http://host:8265) or cluster (host:port). When not given, that of RAY_API_SERVER_ADDRESS, of "
        "RAY_ADDRESS, or of the last `ray start` on this machine.",
        metavar="URL",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of a job, as `dure jobs` shows it.", metavar="ID")]


@app.command()
@results_only_on_stdout
def submit(
    words: Annotated[
        list[str],
        typer.Argument(help="The command after --, from the verb on.", metavar="-- VERB", show_default=False),
    ],
    address: Server = None,
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
    as_json: options.Json = False,
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
        tell=tell,
    )
    job_id = remote.submit(server, prepared, tell=tell)
    at = "" if address is None else f" --address {address}"
    tell(f"job {job_id}\n  follow: dure logs {job_id} --follow{at}\n  stop:   dure stop {job_id}{at}")
    if not wait:
        job = remote.job(server, job_id)
        print_result(job.as_record(), job_id, as_json=as_json)
        return 0
    try:
        job = remote.follow(server, job_id, _show)
    except KeyboardInterrupt:
        tell(
            f"job {job_id} goes on\n  follow: dure logs {job_id} --follow{at}\n  stop:   dure stop {job_id}{at}"
        )
        sys.exit(_INTERRUPTED_CODE)
    print_result(job.as_record(), f"job {job_id} {job.state} after {job.seconds:,.0f} s", as_json=as_json)
    return 0 if job.state == "succeeded" else 1


@app.command()
@results_only_on_stdout
def jobs(address: Server = None, as_json: options.Json = False) -> None:
    """Show the jobs of a cluster, and what runs in the background of this machine."""
    from dure.jobs.finding import all_jobs
    from dure.jobs.table import jobs_table

    found = [job.as_record() for job in all_jobs(address)]
    print_result({"jobs": found}, jobs_table(found), as_json=as_json)


@app.command()
def logs(
    job: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    address: Server = None,
) -> int:
    """Show what a job has printed."""
    from dure.jobs.finding import follow_job, job_log

    if not follow:
        print(job_log(job, address), end="")
        return 0
    ended = follow_job(job, address, lambda text: print(text, end="", flush=True))
    return 0 if ended.state == "succeeded" else 1


@app.command()
@results_only_on_stdout
def stop(
    job: Annotated[
        str,
        typer.Argument(
            help="Name of a job, or folder of a command that runs with --background.", metavar="ID|DIR"
        ),
    ],
    address: Server = None,
    as_json: options.Json = False,
) -> int:
    """Stop a job, or what runs in a folder in the background, in order; nothing that is finished is lost."""
    from dure.jobs import background_folders as folders
    from dure.jobs.finding import stop_job

    if "/" in job or Path(job).exists():
        pid = folders.stop(Path(job))
        print_result({"pid": pid, "path": job}, f"process {pid} has ended", as_json=as_json)
        return 0
    ended = stop_job(job, address)
    print_result(ended.as_record(), f"job {ended.id} {ended.state}", as_json=as_json)
    return 0


def run_in_background(words: Sequence[str]) -> int:
    """Run a command as a job of a cluster that dure keeps on this machine; what --background does.

    Returns once the command works in its folder, with the exit code of the terminal's command.

    Args:
        words: The command's words, from the verb on.
    """
    from dure.jobs.starting import start

    verb = next((word for word in words if not word.startswith("-")), "")
    if verb not in BACKGROUND_VERBS:
        raise UserError(
            f"'{verb}' runs in the terminal only",
            where="--background",
            expected=f"one of: {', '.join(BACKGROUND_VERBS)}",
        )
    started = start(words)
    job = started.job
    if started.path is None:
        # It ended before it began to work: what it said, after what Ray says of every job, is the answer.
        said = started.log.read_text(encoding="utf-8", errors="replace")
        _show(said.partition("Running entrypoint for job")[2].partition("\n")[2] or said)
        return 1 if job.exit_code is None else job.exit_code
    print_result(
        {"job": job.id, "pid": started.pid, "path": started.path, "log": str(started.log)},
        f"job {job.id}, process {started.pid}, works in {started.path}\n  follow: dure logs {job.id} --follow\n"
        f"  log:    {started.log}\n  stop:   dure stop {job.id}",
        as_json="--json" in words,
    )
    return 0


def _check_verb(verb: str) -> None:
    known = [command.name or "" for command in app.registered_commands] + [
        command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback is not None and command.name is None
    ]
    if verb not in known or verb in ("", "submit"):
        raise UserError(
            f"'{verb}' is no verb that a job can run",
            where="dure submit",
            expected="dure submit [options] -- VERB …",
            hint=nearest(verb, [name for name in known if name not in ("", "submit")]),
        )


def _show(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)
