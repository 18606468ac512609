"""The Ray cluster that a study runs on: one's own on this machine, or one that is there already."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dure.errors import RunError, UserError, said
from dure.proxies import NO_PROXY, ask_here_directly
from dure.runtime.guard import MARK, Guard, end_processes
from dure.runtime.lost import SECONDS_TO_ANSWER, answers, head_at, last_words, parts_here, watched
from dure.runtime.scratch import restored, temporary_files

SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable that keeps the working folder out of the places that Python imports from."""
_NOBODY_ELSE = 0o600
_had_own = threading.Event()
"""Whether this process has started a cluster; it need not be there any more."""
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray gives the driver of a job, and its workers not."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to."""

    address: str
    """Its address, ``host:port``."""
    dashboard_url: str | None
    """Where its dashboard is, if it has one."""
    nodes: tuple[dict[str, float], ...]
    """What each node has, taken or not, by Ray's names (``CPU``, ``GPU``)."""
    is_own: bool
    """Whether this process started it and ends it."""


def cluster_of_job() -> str | None:
    """Return the address of the cluster that runs this process as a job (``ray job submit``), or None elsewhere.

    ``RAY_ADDRESS`` alone says nothing: it may stand in a shell's start file, and would send what was meant for
    this machine to a cluster. There ``--address auto`` asks for it.
    """
    return os.environ.get("RAY_ADDRESS") if _JOB in os.environ else None


def works_in_copy() -> bool:
    """Return whether this process is a job whose folder is a copy of what was submitted, deleted after its end."""
    if cluster_of_job() is None:
        return False
    settings = json.loads(os.environ[_JOB]).get("runtime_env") or {}
    return bool(settings.get("working_dir"))


@contextmanager
def cluster(
    address: str | None = None,
    *,
    name: str | None = None,
    path: Path | None = None,
) -> Iterator[Cluster]:
    """Connect to the cluster at ``address``, or start an own one here and end it afterwards.

    A job of a cluster joins that one when no address is given, as whoever submitted it expects.

    An own cluster has its dashboard on 127.0.0.1: Ray Train needs it to release the resources of nested trainers. Its
    address is put into ``RAY_ADDRESS`` while it lives, so that Ray's tools find this one even when several run on the
    machine. ``name`` is what the dashboard's list of jobs calls this process; a submitted job has the name that it was
    submitted with. When the cluster of the run or study in ``path`` is ended from outside this process ends, and the
    user reads what goes on.

    Raises:
        UserError: No cluster answers at ``address``, or this process is connected to one already.
        RunError: An own cluster does not start, or is ended from outside.
    """
    import ray

    if ray.is_initialized():
        raise UserError(
            "this process is connected to a Ray cluster already", hint="call ray.shutdown() first"
        )
    address = cluster_of_job() if address is None else address
    if address is not None:
        _check_answers(address)
    mark = uuid.uuid4().hex
    guard: Guard | None = None
    session: str | None = None
    temporary: Path | None = None
    is_own = address is None
    with restored(MARK, "RAY_ADDRESS", SAFE_PATH, NO_PROXY), ExitStack() as files:
        ask_here_directly()
        try:
            if is_own:
                os.environ.pop("RAY_ADDRESS", None)
                os.environ[MARK] = mark
                # Ray's own processes would take a random.py of the working folder for Python's.
                os.environ[SAFE_PATH] = "1"
                temporary = files.enter_context(temporary_files()) / "ray"
                keep_token_private()
            guard = Guard(mark, last_words(None, path), path)
            context = _connected(address, name, temporary)
            if is_own:
                session = str(context.address_info["session_dir"])
                guard.watch_session(session)
                _had_own.set()
            elif _had_own.is_set():
                _check_actors_start(str(address))
            gcs_address = str(ray.get_runtime_context().gcs_address)
            os.environ["RAY_ADDRESS"] = gcs_address
            dashboard = context.dashboard_url
            with watched(parts_here() if is_own else head_at(gcs_address), path, guard.speak):
                yield Cluster(
                    address=gcs_address,
                    dashboard_url=f"http://{dashboard}" if dashboard else None,
                    nodes=alive_nodes(),
                    is_own=is_own,
                )
        finally:
            with _own_sigterm():
                ray.shutdown()
            if is_own:
                end_processes(mark, session)
            if guard is not None:
                guard.dismiss()
            if session is not None:
                shutil.rmtree(session, ignore_errors=True)


def _check_actors_start(address: str) -> None:
    """Check that a cluster starts an actor of this process, which has had a Ray of its own before.

    Ray 2.60 then ends every actor of the next cluster as it begins, unless both have one address of this machine.

    Raises:
        UserError: It does not.
    """
    import ray

    probe = ray.remote(num_cpus=0)(_Nothing).remote()
    try:
        ray.get(probe.__ray_ready__.remote())
    except ray.exceptions.ActorDiedError:
        raise UserError(
            "this process has had a Ray of its own, after which Ray starts nothing for it on another cluster",
            where=f"the cluster at {address}",
            hint="join the cluster from a new process (of a notebook: restart the kernel), or first",
        ) from None


class _Nothing:
    """An actor that does nothing."""


def _connected(address: str | None, name: str | None, temporary: Path | None) -> Any:
    import ray
    from ray.job_config import JobConfig

    settings = {
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "num_cpus": os.cpu_count(),
        "object_store_memory": object_store_bytes(),
        "_temp_dir": str(temporary),
    }
    try:
        with _own_sigterm():
            return ray.init(
                address=address or "local",
                job_config=JobConfig(metadata={} if name is None else {"job_name": name}),
                log_to_driver=False,
                logging_level=logging.ERROR,
                **(settings if address is None else {}),
            )
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        if address is None:
            raise RunError(f"Ray does not start on this machine: {said(error)}") from error
        raise _no_answer(address, said(error, 200)) from None


def alive_nodes(*, answering: bool = False) -> tuple[dict[str, float], ...]:
    """Return what each node of the connected cluster has, taken or not, by Ray's names.

    With ``answering``, nodes are left out that do not answer: for about fifteen seconds Ray still takes a lost one for
    alive. That is only for processes within the cluster; from outside nodes may be out of reach although all is well.
    """
    import ray

    return tuple(
        {name: float(amount) for name, amount in node["Resources"].items()}
        for node in ray.nodes()
        if node["Alive"] and (not answering or answers(node["NodeManagerAddress"], node["NodeManagerPort"]))
    )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's answer to SIGTERM: Ray sets one that ends it without order.

    At its end it takes that away again in C, without Python's knowledge, so that the signal would end the process.
    """
    answer = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and answer is not None:
            signal.signal(signal.SIGTERM, answer)


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for more than five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # `auto`, or something that Ray refuses at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_answer(address, str(getattr(error, "strerror", None) or error)) from None


def _no_answer(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers there ({reason})",
        where=f"--address {address}",
        hint="`ray status` on the head node shows the address; RAY_AUTH_MODE=token when the cluster asks for a token; "
        "leave the option out for a local cluster",
    )


def object_store_bytes() -> int:
    """A small object store: rows are memory-mapped files and never travel through it."""
    return int(min(512 * 1024**2, psutil.virtual_memory().total * 0.1))


def keep_token_private() -> None:
    """Make the token file of this user readable for its owner alone, or write it so before Ray does: that lets all read it.

    Nothing is written where a token is given by other means, or none is asked for.
    """
    file = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):  # where the home cannot be written to, Ray says what that means
        if file.is_file():
            if file.stat().st_uid == os.getuid() and file.stat().st_mode & 0o077:
                file.chmod(_NOBODY_ELSE)
        elif _is_wanted():
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _NOBODY_ELSE)
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write(secrets.token_hex(32))


def _is_wanted() -> bool:
    is_given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return not is_given and os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
