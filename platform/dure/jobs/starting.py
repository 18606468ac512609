"""Starting a command of dure as a background job, and waiting until it is known to be right."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dure.errors import RunError
from dure.files import json_or_none
from dure.jobs import background_environment as environment
from dure.jobs.background_records import Records, records
from dure.jobs.job_server import JobServer, find_server, once_it_can
from dure.jobs.jobs import COMMAND, ENDED, SECONDS_TO_STOP, Job, job, new_id, stop
from dure.jobs.keeper import start_keeper
from dure.runs.lock import JOB, Holder, require_free
from dure.secrets import redacted

_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Started:
    """A background job whose checks are over.

    The job may have ended already; it held no folder when that was before it began to work.
    """

    job: Job
    holder: Holder | None
    log: Path


def start(words: Sequence[str]) -> Started:
    """Start a command as a job, and return once it works in its folder or has ended.

    ``words`` are the command's, from the verb on.

    Raises:
        UserError: Another one works in the folder that they name.
        RunError: No cluster starts for it, or that does not take it.
    """
    output = _given_output(words)
    if output is not None:
        require_free(output)
    kept = records()
    job_id = new_id()
    command = shlex.join(words)
    kept.log(job_id).touch(mode=0o600)
    kept.write_environment(job_id, environment.handed_on(os.environ, Path.cwd()))
    try:
        server = _submit(kept, job_id, command)
    except BaseException:
        kept.forget_environment(job_id)
        raise
    try:
        while True:
            found = job(server, job_id)
            claim = json_or_none(kept.claim(job_id))
            if claim is not None or found.state in ENDED:
                return Started(found, Holder(**claim) if claim else None, kept.log(job_id))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        stop(server, job_id)
        raise


def _given_output(words: Sequence[str]) -> Path | None:
    """Return the folder that a command names; what can be refused at once need not wait for a job."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--output="):
            return Path(word.removeprefix("--output="))
        if word in ("--output", "-o") and following:
            return Path(following)
    return None


def _submit(kept: Records, job_id: str, command: str) -> JobServer:
    """Give a command to the cluster of background jobs, which is started when there is none."""
    with kept.locked():
        keeper = kept.keeper() or start_keeper(kept)
        server = find_server(keeper.url)
        # The log lies beside the record and not in the folder of a cluster that will be gone.
        link = Path(keeper.session, "logs", f"job-driver-{job_id}.log")
        link.symlink_to(kept.log(job_id))
        variables = {
            JOB: job_id,
            environment.FILE: str(kept.environment(job_id)),
            "RAY_JOB_STOP_WAIT_TIME_S": str(SECONDS_TO_STOP),
        }
        if "PYTHONPATH" in os.environ:
            variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
        asked = {
            "entrypoint": f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.quote(sys.executable)} -m dure {command}",
            "submission_id": job_id,
            "runtime_env": {"env_vars": variables, "worker_process_setup_hook": environment.HOOK},
            "metadata": {COMMAND: redacted(command)},
        }
        accepted = once_it_can(lambda: server.ask("/api/jobs/", asked))
        if accepted is None:
            raise RunError(f"the cluster of background jobs takes none (see {kept.keeper_log})")
        kept.write(
            Job(
                job_id,
                "pending",
                redacted(command),
                datetime.now(UTC).isoformat(timespec="seconds"),
                0.0,
                None,
                server.url,
            )
        )
    return server
