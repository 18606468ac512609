"""Finding the server that takes a cluster's jobs, and speaking with it: checked at once, and never waited for long.

Ray's own client waits without a limit and reports a wrong address by a traceback. What it does beyond plain
requests, packing and uploading folders, is left to it (:mod:`dure.jobs.jobs`).
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil

from dure.errors import RunError, UserError

_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_ANSWER = 60.0
_SECONDS_TO_ASK_CLUSTER = 30.0
_SECONDS_FOR_AN_AGENT = 60.0
_SECONDS_BETWEEN_TRIES = 1.0
_NO_AGENT = "No available agent"
_EXPECTED = (
    "http://HOST:PORT of the dashboard (8265 unless chosen otherwise), HOST:PORT of the cluster, or auto"
)
_TOKEN_HINT = (
    "RAY_AUTH_MODE=token in the environment, with the cluster's token in RAY_AUTH_TOKEN, in the file that "
    "RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token (`ray get-auth-token` on the head node shows it)"
)


T = TypeVar("T")


def once_it_can(send: Callable[[], T]) -> T:
    """Send a job, and again as long as a cluster that has just started has no agent yet to run it.

    Ray's server waits ten seconds for one by itself, which a busy machine may take longer to start.
    """
    deadline = time.monotonic() + _SECONDS_FOR_AN_AGENT
    while True:
        try:
            return send()
        except (RuntimeError, RunError) as error:  # of Ray's client, and of ours
            if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(_SECONDS_BETWEEN_TRIES)


@dataclass(frozen=True)
class JobServer:
    """The job server of a cluster, which is its dashboard."""

    url: str
    """``http://host:port``."""
    where: str
    """How the user named it, for errors."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """What a request must carry; holds the token, so it is never shown."""

    def is_of_this_machine(self) -> bool:
        """Return whether the cluster's head node is this machine; a port of this one may lead to another."""
        nodes = ((self.ask("/nodes?view=summary") or {}).get("data") or {}).get("summary") or ()
        heads = [node["raylet"] for node in nodes if (node.get("raylet") or {}).get("isHeadNode")]
        return any(is_here(str(head.get("nodeManagerAddress"))) for head in heads)

    def ask(
        self, path: str, value: Any = None, *, method: str | None = None, seconds: float = _SECONDS_TO_ANSWER
    ) -> Any:
        """Send a request and return the JSON object that comes back, or None when there is no such thing.

        With a value, which is sent as JSON, the method is POST when none is given.

        Raises:
            UserError: Nothing answers, something else answers, or a token is missing or wrong.
            RunError: The server fails.
        """
        request = urllib.request.Request(
            self.url + path,
            data=None if value is None else json.dumps(value).encode(),
            headers={**self.headers, **({} if value is None else {"Content-Type": "application/json"})},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise self.refused() from None
            if error.code == 404:
                return None
            said = " ".join(error.read().decode(errors="replace").split())
            raise RunError(f"the job server at {self.url} failed ({error.code}): {said[-300:]}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise no_answer(self.where, _reason(error)) from None

    def refused(self) -> UserError:
        """Return the error of a server that does not let us in."""
        given = "the token is wrong" if self.headers else "it asks for a token, and none was sent"
        return UserError(
            f"the cluster lets nobody in without a token: {given}", where=self.where, hint=_TOKEN_HINT
        )


def find_server(address: str | None = None) -> JobServer:
    """Return the job server of a cluster, after a look that it answers.

    Args:
        address: Of its dashboard or of the cluster. When not given: that of ``RAY_API_SERVER_ADDRESS``, of
            ``RAY_ADDRESS``, or of the last ``ray start`` on this machine, as Ray's tools do it.

    Raises:
        UserError: There is none, or none that lets us in.
    """
    where, address = _named(address)
    if "://" in address:
        scheme, host = address.partition("://")[0], _host_and_port(address, where)[0]
        if scheme not in ("http", "https"):
            raise UserError(f"'{scheme}' is no way to a job server", where=where, expected=_EXPECTED)
        url = address.rstrip("/")
    else:
        host, port = _host_and_port(f"//{address}", where)
        try:
            socket.create_connection((host, port), timeout=_SECONDS_TO_CONNECT).close()
        except (OSError, UnicodeError) as error:
            raise no_answer(where, _reason(error)) from None
        url = f"http://{address}"
        if not _speaks_http(url):
            url = _dashboard_of(address, where, host)
            host = urlsplit(url).hostname or host
    server = JobServer(url, where, token_headers(host))
    version = server.ask("/api/version", seconds=_SECONDS_TO_CONNECT)
    if not isinstance(version, dict) or "ray_version" not in version:
        raise no_answer(where, "something else answers there")
    return server


def is_here(host: str) -> bool:
    """Return whether a host name or address is this machine's."""
    if host == "localhost":
        return True
    try:
        if ipaddress.ip_address(host).is_loopback:
            return True
    except ValueError:
        return host == socket.gethostname()
    return any(host == each.address for addresses in psutil.net_if_addrs().values() for each in addresses)


def token_headers(host: str) -> dict[str, str]:
    """Return the header that carries the cluster's token, when it should be sent there.

    As in Ray, a token goes to another machine only when ``RAY_AUTH_MODE=token`` says so.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode != "token" and (mode or not is_here(host)):
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN") or _read(os.environ.get("RAY_AUTH_TOKEN_PATH"))
    token = token or _read(str(Path.home() / ".ray" / "auth_token"))
    return {"Authorization": f"Bearer {token}"} if token else {}


def no_answer(where: str, reason: str) -> UserError:
    """Return the error of an address where no job server answers."""
    return UserError(
        f"no job server of a Ray cluster answers there ({reason})",
        where=where,
        expected=_EXPECTED,
        hint="`ray start --head` starts a cluster and shows its dashboard's address; --background needs none",
    )


def _named(address: str | None) -> tuple[str, str]:
    """Return how the user named the cluster, and its address."""
    if address is not None and address != "auto":
        return f"--address {address}", address
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        given = os.environ.get(name)
        if given and given != "auto":
            return f"{name}={given}", given
    where = "--address" if address is None else "--address auto"
    started = _read(str(Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"))
    if started is None:
        raise UserError(
            "no cluster is named, and none was started on this machine with `ray start`",
            where=where,
            expected=_EXPECTED,
            hint="`ray start --head` starts one; --background in place of `dure submit` needs none",
        )
    return f"{where} ({started}, of the last `ray start` here)", started


def _host_and_port(url: str, where: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or (port is None and url.startswith("//")):
        raise UserError("this is no address", where=where, expected=_EXPECTED)
    return host, port or 0


def _speaks_http(url: str) -> bool:
    """Return whether a web server answers there; a cluster's own port speaks another protocol."""
    try:
        urllib.request.urlopen(f"{url}/api/version", timeout=_SECONDS_TO_CONNECT).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):
        return False
    return True


def _dashboard_of(address: str, where: str, host: str) -> str:
    """Ask a cluster where its dashboard is; in a process of its own, since Ray's client may wait forever."""
    mode = {"RAY_AUTH_MODE": "token"} if token_headers(host) else {}
    script = "import sys; from ray.dashboard.utils import ray_address_to_api_server_url as of; print(of(sys.argv[1]))"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", script, address],
            env={**environment, **mode}, capture_output=True, text=True, timeout=_SECONDS_TO_ASK_CLUSTER, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise no_answer(where, "something else answers there") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:] or [""]
        if "nauth" in said[0]:
            raise JobServer("", where, token_headers(host)).refused() from None
        raise no_answer(where, said[0][:200]) from None
    return ended.stdout.strip().splitlines()[-1]


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)[:200]


def _read(path: str | None) -> str | None:
    """Return what a file holds, without blanks around it; None when it holds nothing or is not there."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip() or None if path else None
    except OSError:
        return None
