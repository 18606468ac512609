"""Jobs of a cluster: submitted, listed, followed and stopped through Ray's Jobs API."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from dure.errors import DureError, RunError, UserError, nearest, said
from dure.events import Notify
from dure.jobs.job_server import JobServer, once_it_can
from dure.jobs.upload import Upload, check_size, megabytes, plan_upload
from dure.runtime.scratch import restored
from dure.secrets import CLOUD_SECRETS, SECRETS, is_secret, redacted
from dure.signals import INTERRUPTED_CODE

ENDED = ("succeeded", "failed", "stopped")
COMMAND = "dure_command"
"""Metadata of a job: the command as it was given."""
SECONDS_TO_STOP = 120
"""Time that a stopped job has to finish its step and write a checkpoint; Ray alone gives it three seconds."""
RUNTIME_ENV = Path("cluster", "runtime_env.yaml")
_SECONDS_BETWEEN_LOOKS = 0.5
_WAITS_SECONDS = (2.0, 5.0, 10.0, 20.0)
"""Before each further attempt to follow a job whose connection broke without a word since the one before."""


@dataclass(frozen=True)
class Job:
    """A job of a cluster."""

    id: str
    """What names it."""
    state: str
    """``pending``, ``running``, ``succeeded``, ``failed`` or ``stopped``."""
    command: str
    """The command, from the verb on; the whole entrypoint of a job that dure did not submit."""
    started: str | None
    """When it was submitted, in UTC."""
    seconds: float
    """How long it has run, or ran."""
    exit_code: int | None
    """That of its command, once that has ended by itself."""
    server: str
    """Where its cluster's dashboard is."""

    @property
    def verb(self) -> str:
        """The verb, without what it was given."""
        return self.command.split(maxsplit=1)[0] if self.command else ""

    def as_record(self) -> dict[str, Any]:
        """Return the job as a JSON-ready object; neither its environment nor its token is in there."""
        return {**asdict(self), "verb": self.verb}


def new_id() -> str:
    """Return the name of a new job: when it was submitted, and something that makes it unique."""
    return f"dure-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def jobs(server: JobServer) -> list[Job]:
    """Return the submitted jobs of a cluster, the latest last."""
    found = [_job(server, each) for each in server.ask("/api/jobs/") or () if each.get("submission_id")]
    return sorted(found, key=lambda each: (each.started or "", each.id))


def job(server: JobServer, job_id: str) -> Job:
    """Return a job.

    Raises:
        UserError: There is none of that name.
    """
    found = server.ask(f"/api/jobs/{job_id}") if job_id.replace("-", "").replace("_", "").isalnum() else None
    if found is None:
        raise no_job(job_id, jobs(server), server.where)
    return _job(server, found)


def no_job(job_id: str, known: Sequence[Job], where: str) -> UserError:
    """Return the error of a name that no job has."""
    return UserError(
        f"there is no job '{job_id}'",
        where=where,
        expected="the name of a job, as `dure jobs` shows it; `dure stop` also takes the folder of what was started "
        "with --background",
        hint=nearest(job_id, [each.id for each in known]),
    )


def follow(server: JobServer, job_id: str, write: Callable[[str], None]) -> Job:
    """Hand on what a job prints until it has ended, and return how it ended; what it printed before comes first.

    ``write`` gets pieces of text, without secrets.

    Raises:
        UserError: There is no such job.
        RunError: The connection breaks again and again.
    """
    job(server, job_id)
    written = breaks = 0
    while True:
        seen, before = 0, written

        async def tail() -> None:
            nonlocal seen, written
            async for piece in _client(server).tail_job_logs(job_id):
                new = piece[max(0, written - seen) :]
                seen += len(piece)
                if new:
                    write(redacted(new))
                    written += len(new)

        try:
            asyncio.run(tail())
            ended = job(server, job_id)
            if ended.state in ENDED:
                return ended
            why = "it was closed"
        except (
            RuntimeError,
            OSError,
            DureError,
        ) as error:  # a network that is back in a moment, as on a laptop
            why = said(error, 200)
        breaks = 1 if written > before else breaks + 1
        if breaks > len(_WAITS_SECONDS):
            raise RunError(f"the connection to {server.url} broke ({why}); the job goes on")
        time.sleep(_WAITS_SECONDS[breaks - 1])


def log(server: JobServer, job_id: str) -> str:
    """Return what a job has printed until now, without secrets.

    Raises:
        UserError: There is no such job.
    """
    job(server, job_id)
    return redacted(str((server.ask(f"/api/jobs/{job_id}/logs") or {}).get("logs") or ""))


def stop(server: JobServer, job_id: str) -> Job:
    """Stop a job cleanly, wait for its end, and return how it ended; one that has ended is left as it is.

    Raises:
        UserError: There is no such job.
        RunError: It does not end.
    """
    found = job(server, job_id)
    if found.state not in ENDED:
        server.ask(f"/api/jobs/{job_id}/stop", method="POST")
    deadline = time.monotonic() + SECONDS_TO_STOP + 10
    while found.state not in ENDED:
        if time.monotonic() > deadline:
            raise RunError(
                f"{job_id} has not ended within {SECONDS_TO_STOP + 10} s; see `dure logs {job_id}`"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        found = job(server, job_id)
    return found


@dataclass(frozen=True)
class Submission:
    """A command of dure as a job, before anything is sent.

    Its words are those from the verb on; the entrypoint is what the shell of a node runs.
    """

    words: tuple[str, ...]
    entrypoint: str
    upload: Upload
    runtime_env: dict[str, Any]


def prepare(
    words: Sequence[str],
    *,
    is_here: bool,
    working_dir: Path,
    runtime_env: Path | None = None,
    outputs: Path | None = None,
    max_file_mb: float | None = None,
    pass_env: Sequence[str] = (),
    notify: Notify,
) -> Submission:
    """Make a job of a command, and check that it can be sent.

    The words are those from the verb on. Where the cluster's head node is this machine (``is_here``), it sees the same
    folders and programs. What travels is said by ``cluster/runtime_env.yaml`` of the folder when no other file is
    given; results go to ``outputs`` of the working folder on this machine, and elsewhere to where the file says.

    Raises:
        UserError: The folder, the file, a variable or the size is wrong.
    """
    settings = _read_runtime_env(runtime_env, working_dir)
    upload = plan_upload(working_dir, excludes=settings.pop("excludes", None) or (), max_file_mb=max_file_mb)
    check_size(upload)
    for name, size in sorted(upload.left_out.items()):
        notify(f"left behind: {name} ({megabytes(size)}); --max-file-mb takes larger files along")
    environment = {
        "RAY_JOB_STOP_WAIT_TIME_S": str(SECONDS_TO_STOP),
        **{str(name): str(value) for name, value in (settings.get("env_vars") or {}).items()},
        **_handed_on(pass_env, notify),
    }
    if outputs is None and is_here and "DURE_OUTPUTS" not in environment:
        outputs = upload.folder / "outputs"
    if outputs is not None:
        environment["DURE_OUTPUTS"] = str(outputs.expanduser().absolute())
    if "DURE_OUTPUTS" not in environment:
        notify(
            "results go to ~/dure/outputs of the node that runs the command; --outputs names a shared folder"
        )
    # The module and not the program: it is in the folder that is sent, whatever the nodes' PATH has.
    python = sys.executable if is_here else "python"
    return Submission(
        words=tuple(words),
        entrypoint=f"exec {shlex.quote(python)} -m dure {shlex.join(words)}",
        upload=upload,
        runtime_env={
            **settings,
            "working_dir": str(upload.folder),
            "excludes": upload.excludes,
            "env_vars": environment,
        },
    )


def submit(server: JobServer, submission: Submission, *, notify: Notify) -> str:
    """Send a job, and return its name.

    Raises:
        UserError: The cluster lets us not in, or refuses the environment.
        RunError: It fails to take the job.
    """
    notify(
        f"sending {len(submission.upload.files):,} files, {megabytes(submission.upload.num_bytes)}, to {server.url}"
    )
    passed = [value for name, value in submission.runtime_env["env_vars"].items() if name in os.environ]
    command = redacted(shlex.join(submission.words), passed)
    with _answers(server):
        client = _client(server)
        return once_it_can(
            lambda: str(
                client.submit_job(
                    entrypoint=submission.entrypoint,
                    submission_id=new_id(),
                    runtime_env=submission.runtime_env,
                    metadata={COMMAND: command},
                )
            )
        )


def _read_runtime_env(file: Path | None, working_dir: Path) -> dict[str, Any]:
    path = working_dir / RUNTIME_ENV if file is None else file
    if file is None and not path.is_file():
        settings: Any = {}
    else:
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise UserError(f"it cannot be read ({error.strerror})", where=f"--runtime-env {path}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"this is no YAML ({said(error, 200)})", where=f"--runtime-env {path}") from None
        if not isinstance(settings, dict):
            raise UserError("this is no mapping", where=f"--runtime-env {path}", expected="key: value")
    settings.pop("working_dir", None)
    modules = []
    for module in settings.get("py_modules") or ():
        modules.append(str(module if "://" in str(module) else (working_dir / str(module)).resolve()))
        if "://" not in modules[-1] and not Path(modules[-1]).exists():
            raise UserError(
                f"py_modules: there is no '{module}' in {working_dir}", where=f"--runtime-env {path}"
            )
    return {**settings, **({"py_modules": modules} if modules else {})}


def _handed_on(names: Sequence[str], notify: Notify) -> dict[str, str]:
    """Return the variables that are handed on; Ray shows them to everybody who may see its jobs."""
    for name in names:
        if name not in os.environ:
            raise UserError("this variable is not set here", where=f"--pass-env {name}")
    secret = [name for name in names if is_secret(name)]
    if secret:
        notify(f"{', '.join(secret)}: whoever may list the jobs of this cluster can read it there")
    missing = [name for name in (*SECRETS, *CLOUD_SECRETS) if os.environ.get(name) and name not in names]
    if missing:
        notify(
            f"{', '.join(missing)} stays here: set it on the nodes (a Kubernetes Secret, their environment), or "
            "--pass-env NAME, which whoever may list the cluster's jobs can read"
        )
    return {name: os.environ[name] for name in names}


def _job(server: JobServer, record: Mapping[str, Any]) -> Job:
    state, code = str(record["status"]).lower(), record.get("driver_exit_code")
    environment = (record.get("runtime_env") or {}).get("env_vars") or {}
    command = (record.get("metadata") or {}).get(COMMAND) or record["entrypoint"]
    started, ended = record.get("start_time"), record.get("end_time")
    return Job(
        id=str(record["submission_id"]),
        # A command that was told to end cleanly says so by this code.
        state="stopped" if state == "failed" and code == INTERRUPTED_CODE else state,
        command=redacted(
            str(command), [str(value) for name, value in environment.items() if is_secret(name)]
        ),
        started=datetime.fromtimestamp(started / 1000, UTC).isoformat(timespec="seconds")
        if started
        else None,
        seconds=round((ended or time.time() * 1000) / 1000 - started / 1000, 1) if started else 0.0,
        exit_code=code,
        server=server.url,
    )


@contextmanager
def _answers(server: JobServer) -> Iterator[None]:
    """Turn the errors of Ray's client into ours."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        raise server.refused() from None
    except (ValueError, TypeError) as error:
        raise UserError(
            redacted(said(error))[:400],
            where="--runtime-env",
            hint="what Ray knows there: docs.ray.io, runtime environments",
        ) from None
    except (RuntimeError, OSError) as error:
        line = redacted(said(error))
        raise RunError(f"the cluster at {server.url} did not take the job: {line[-400:]}") from None


def _client(server: JobServer) -> Any:
    """Return Ray's own client of a server."""
    from ray.job_submission import JobSubmissionClient

    for name in (
        "dashboard.modules.dashboard_sdk",
        "dashboard.modules.job.sdk",
        "_private.runtime_env.packaging",
    ):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    logging.getLogger("ray._private.runtime_env.working_dir").setLevel(logging.ERROR)
    # It would let these two win over the address that it is given.
    others = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    with restored(*others), _answers(server):
        for name in others:
            os.environ.pop(name, None)
        return JobSubmissionClient(server.url, headers=dict(server.headers))
