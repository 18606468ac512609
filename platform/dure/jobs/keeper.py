"""The keeper: a process without a terminal that holds a cluster for background jobs as long as there are any."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dure.errors import DureError, RunError
from dure.files import json_or_none, write_json
from dure.jobs.background_records import ClusterKeeper, Records
from dure.jobs.job_server import JobServer, find_server
from dure.jobs.jobs import ENDED, jobs, stop
from dure.runs.lock import born
from dure.runtime.cluster import SAFE_PATH, keep_token_private, object_store_bytes
from dure.runtime.guard import MARK, Guard, end_processes
from dure.runtime.scratch import scratch_folder, temporary_files
from dure.secrets import is_secret

_SECONDS_TO_START = 120.0
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_IDLE = 5.0
_TOKEN = "RAY_AUTH_TOKEN"
_RAY = "from ray.scripts.scripts import main; main()"


def start_keeper(records: Records) -> ClusterKeeper:
    """Start a keeper that outlives this process, and return it once its cluster takes jobs.

    Raises:
        RunError: Its cluster does not start.
    """
    clear_up(records)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name == _TOKEN or not (is_secret(name) or name in (MARK, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"))
    }
    with records.keeper_log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from dure.jobs.keeper import keep; keep({str(records.path)!r})"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=records.path,
            env=environment,
            start_new_session=True,
        )
    while process.poll() is None:
        keeper = records.keeper()
        if keeper is not None:
            return keeper
        time.sleep(0.1)
    last = records.keeper_log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise RunError(f"no cluster for background jobs starts: {''.join(last)} (see {records.keeper_log})")


def clear_up(records: Records) -> None:
    """Remove what a keeper that was killed left on the disk; its guard ended its processes."""
    left = json_or_none(records.keeper_file)
    if left is None or "temporary" not in left:
        return
    shutil.rmtree(left["temporary"], ignore_errors=True)
    for environment in records.path.glob("*.environment"):
        environment.unlink(missing_ok=True)
    records.keeper_file.unlink(missing_ok=True)


def keep(path: str) -> None:
    """Run a cluster until no job is left in it; what the keeper's process does.

    On SIGTERM its jobs are stopped cleanly, and then it.
    """
    records = Records(Path(path))
    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told_to_end.append(number))
    mark = uuid.uuid4().hex
    guard = Guard(mark)
    temporary = scratch_folder() / "ray"
    session: str | None = None
    try:
        with temporary_files():
            head, server = _start_head(str(temporary), mark)
        session = str(Path(temporary, "session_latest").resolve())
        guard.watch_session(session)
        keeper = ClusterKeeper(os.getpid(), born(os.getpid()) or 0.0, server.url, session, str(temporary))
        write_json(records.keeper_file, asdict(keeper))
        _watch(records, head, server, told_to_end)
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(timeout=60)
    except DureError as error:
        print(error, flush=True)
        sys.exit(1)
    finally:
        records.keeper_file.unlink(missing_ok=True)
        end_processes(mark, session)
        guard.dismiss()
        shutil.rmtree(temporary, ignore_errors=True)


def _watch(
    records: Records, head: subprocess.Popen[bytes], server: JobServer, told_to_end: Sequence[int]
) -> None:
    """Keep the records of the jobs true until none is left, or the cluster died.

    A dashboard that does not answer on a busy machine, or a full disk, is told once and ends no job.
    """
    busy, told = time.monotonic(), ""
    while head.poll() is None:
        try:
            running = _record(records, server)
            if told_to_end:
                for name in running:
                    stop(server, name)
            if running:
                busy = time.monotonic()
            elif told_to_end or time.monotonic() - busy > _SECONDS_IDLE:
                # Whoever starts a job holds the lock until the cluster has it.
                with records.locked():
                    if not _record(records, server):
                        records.keeper_file.unlink(missing_ok=True)
                        return
        except (DureError, OSError) as error:
            if told_to_end:
                return
            if str(error) != told:
                told = str(error)
                with contextlib.suppress(OSError):
                    print(told, flush=True)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise RunError(f"Ray ended by itself with code {head.returncode}")


def _record(records: Records, server: JobServer) -> list[str]:
    """Write down where the jobs stand, and return those that have not ended."""
    running = []
    for job in jobs(server):
        known = records.job(job.id)
        if job.state not in ENDED:
            running.append(job.id)
        else:
            records.forget_environment(job.id)
        if known is None or known.state != job.state:
            records.write(job)
    return running


def _start_head(temporary: str, mark: str) -> tuple[subprocess.Popen[bytes], JobServer]:
    """Start a head node on ports that nobody uses, and wait until it takes jobs."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    environment = {**os.environ, MARK: mark, SAFE_PATH: "1"}
    keep_token_private()
    port, dashboard, agent, client = free_ports(4)
    head = subprocess.Popen(
        [
            *(sys.executable, "-c", _RAY, "start", "--head", "--block", "--disable-usage-stats"),
            *("--port", str(port), "--ray-client-server-port", str(client)),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
            *("--dashboard-agent-listen-port", str(agent)),
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *("--temp-dir", temporary, "--object-store-memory", str(object_store_bytes())),
        ],
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    deadline = time.monotonic() + _SECONDS_TO_START
    while head.poll() is None:
        try:
            return head, find_server(f"http://127.0.0.1:{dashboard}")
        except DureError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)
    raise RunError(f"`ray start` ended with code {head.returncode}")


def free_ports(count: int) -> list[int]:
    """Return numbers of ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
