"""Run a command as a job of a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dure.cli import options
from dure.cli.app import VERBS, verb
from dure.cli.background import show
from dure.cli.printing import notify, print_result
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
        notify=notify,
    )
    job_id = remote.submit(server, prepared, notify=notify)
    at = "" if address is None else f" --address {address}"
    ways = f"\n  follow: dure logs {job_id} --follow{at}\n  stop:   dure stop {job_id}{at}"
    notify(f"job {job_id}{ways}")
    if not wait:
        print_result(remote.job(server, job_id).as_record(), job_id, as_json=as_json)
        return 0
    return _follow(server, job_id, ways, as_json=as_json)


def _follow(server: JobServer, job_id: str, ways: str, *, as_json: bool) -> int:
    """Show what a job prints to its end, and return the exit code; Ctrl-C leaves the job alone."""
    from dure.jobs import jobs as remote

    try:
        job = remote.follow(server, job_id, show)
    except KeyboardInterrupt:
        notify(f"job {job_id} goes on{ways}")
        sys.exit(INTERRUPTED_CODE)
    print_result(job.as_record(), f"job {job_id} {job.state} after {job.seconds:,.0f} s", as_json=as_json)
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
