"""The Ray cluster that a study runs on: one's own on this machine, or one that is there already."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from dure.errors import RunError, UserError
from dure.runtime.guard import MARK, Guard, end_processes

_SECONDS_TO_ANSWER = 5.0


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        address: Its address, ``host:port``.
        dashboard_url: Where its dashboard is, if it has one.
        resources: What it has in all, by Ray's names (``CPU``, ``GPU``).
        is_own: Whether this process started it and ends it.
    """

    address: str
    dashboard_url: str | None
    resources: dict[str, float]
    is_own: bool


@contextmanager
def cluster(
    address: str | None = None, *, name: str | None = None, log_level: int = logging.ERROR
) -> Iterator[Cluster]:
    """Connect to the cluster at ``address``, or start an own one here and end it afterwards.

    An own cluster has its dashboard on 127.0.0.1: Ray Train needs it to release the resources of nested
    trainers. Its address is put into ``RAY_ADDRESS`` while it lives, so that Ray's tools find this one even
    when several run on the machine.

    Args:
        address: Cluster to join.
        name: What the dashboard's list of jobs calls this process; a submitted job has the name that it was
            submitted with.
        log_level: Least level of Ray's messages that are shown.

    Raises:
        UserError: No cluster answers at ``address``, or this process is connected to one already.
        RunError: An own cluster does not start.
    """
    import ray
    from ray.job_config import JobConfig

    if ray.is_initialized():
        raise UserError(
            "this process is connected to a Ray cluster already", hint="call ray.shutdown() first"
        )
    if address is not None:
        _check_answers(address)
    mark = uuid.uuid4().hex
    guard: Guard | None = None
    session: str | None = None
    saved = {name: os.environ.get(name) for name in (MARK, "RAY_ADDRESS")}
    settings = {
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "num_cpus": os.cpu_count(),
        "object_store_memory": _object_store_bytes(),
    }
    try:
        if address is None:
            os.environ.pop("RAY_ADDRESS", None)
            os.environ[MARK] = mark
            guard = Guard(mark)
        try:
            with _own_sigterm():
                context = ray.init(
                    address=address or "local",
                    job_config=JobConfig(metadata={} if name is None else {"job_name": name}),
                    log_to_driver=False,
                    logging_level=log_level,
                    **(settings if address is None else {}),
                )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            line = " ".join(str(error).split())
            if address is None:
                raise RunError(f"Ray does not start on this machine: {line}") from error
            raise _no_answer(address, line[:200]) from None
        session = str(context.address_info["session_dir"])
        if guard is not None:
            guard.watch_session(session)
        gcs_address = str(ray.get_runtime_context().gcs_address)
        os.environ["RAY_ADDRESS"] = gcs_address
        dashboard = context.dashboard_url
        yield Cluster(
            address=gcs_address,
            dashboard_url=f"http://{dashboard}" if dashboard else None,
            resources={key: float(value) for key, value in ray.cluster_resources().items()},
            is_own=address is None,
        )
    finally:
        ray.shutdown()
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if guard is not None:
            end_processes(mark, session)
            guard.dismiss()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's answer to SIGTERM: Ray sets one that ends it without order."""
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
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_answer(address, str(getattr(error, "strerror", None) or error)) from None


def _no_answer(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers there ({reason})",
        where=f"--address {address}",
        hint="`ray status` on the head node shows the address; RAY_AUTH_MODE=token when the cluster asks for a token; "
        "leave the option out for a local cluster",
    )


def _object_store_bytes() -> int:
    """A small object store: rows are memory-mapped files and never travel through it."""
    return int(min(512 * 1024**2, psutil.virtual_memory().total * 0.1))
