"""``dure serve``: from a folder to a server that ends cleanly, with the cluster that it started."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from dure.config.families import trusting
from dure.config.schema import Profile
from dure.errors import UserError
from dure.events import Notify
from dure.family.run_weights import RunWeights, weights_at
from dure.serving.openapi import Served, Serving
from dure.signals import ENDING

HOST = "127.0.0.1"
PACKAGES = ("fastapi", "starlette", "uvicorn")
_MOST_WAITING = 1024
"""Requests that may wait for a replica."""
_SHORTEST_TOKEN = 16


def serve_models(
    runs: Sequence[Path],
    asked: Serving,
    profile: Profile,
    *,
    trust_code: bool,
    ready: Callable[[dict[str, Any]], None],
    notify: Notify,
) -> dict[str, int]:
    """Serve the models of runs until a signal asks for the end, and return how many requests had each status.

    Several runs are of one family, and predict together. ``ready`` gets address, model and limits once predictions can
    be had.

    Raises:
        UserError: The port is taken, a folder holds no model, or the cluster has no room for the replicas.
        RunError: The replicas do not start.
    """
    from dure.runtime.cluster import cluster
    from dure.serving.asked import Inputs
    from dure.serving.batcher import Batcher
    from dure.serving.deploying import deployed
    from dure.serving.figures import Figures
    from dure.serving.web import Front

    weights = [weights_at(run) for run in runs]
    with trusting(trust_code):
        family = weights[0].family(notify)
    batch_size = asked.batch_size or family.experiment.training.rows_evaluated
    figures = Figures()
    with ExitStack() as open_:
        listening = open_.enter_context(bound(asked.port))
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        # Folds are named after their experiment: NAME.fold_1
        name = family.experiment.name.partition(".fold_")[0] if len(weights) > 1 else family.experiment.name
        served = Served(name, family.experiment.family, _words(weights), address)
        notify(f"loading {served.words}")
        here = open_.enter_context(cluster(asked.address, name=f"serve {served.name}"))
        models = open_.enter_context(
            deployed(
                runs,
                asked.num_replicas,
                profile,
                here,
                batch_size=batch_size,
                trust_code=trust_code,
                seconds=asked.time_limit,
            )
        )
        batcher = Batcher(models.send, most_texts=batch_size, most_waiting=_MOST_WAITING, figures=figures)
        front = Front(served, Inputs(family), batcher, figures, asked, models.num_running)

        def begun() -> None:
            batcher.start(models.num_replicas)
            ready(
                {
                    "url": address,
                    "model": served.words,
                    "experiment": served.name,
                    "family": served.family,
                    "replicas": models.num_replicas,
                    "device": profile.device,
                    "pid": os.getpid(),
                }
            )

        _run(front.app(), listening, asked.time_limit, begun, batcher.stop, notify)
    return figures.statuses()


def _words(weights: Sequence[RunWeights]) -> str:
    """Return what is served, for people."""
    if len(weights) > 1:
        return f"the mean of {len(weights)} folds: {', '.join(each.run.name for each in weights)}"
    return weights[0].words


@contextmanager
def bound(port: int) -> Iterator[socket.socket]:
    """Hold a port, which does not listen yet.

    Raises:
        UserError: It cannot be had.
    """
    # Said to be TCP: asyncio asks for it before it sends small answers at once, which come 40 ms later otherwise.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((HOST, port))
            # Two could bind a port that nobody listens to yet; what comes meanwhile waits.
            held.listen(128)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise UserError(
                "another program has the port" if taken else f"the port cannot be had ({error.strerror})",
                where=f"--port {port}",
                expected="a free port",
                hint="--port 0 takes any that is free, and says which",
            ) from None
        yield held


def _run(
    app: Any,
    listening: socket.socket,
    seconds: float,
    begun: Callable[[], None],
    ended: Callable[[], None],
    notify: Notify,
) -> None:
    """Answer requests until a signal; then answer those that are there, and return."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            begun()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            ended()

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Take the first signal as a request to end, the second as one to end at once; give none on."""
            saved = {}
            for number in ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    saved[number] = signal.signal(number, self._asked)
            try:
                yield
            finally:
                for number, handler in saved.items():
                    signal.signal(number, handler)

        def _asked(self, number: int, frame: object) -> None:
            is_first, self.should_exit = not self.should_exit, True
            self.force_exit = self.force_exit or not (is_first or number == signal.SIGHUP)
            if is_first:
                with suppress(OSError):  # of a terminal that is closed
                    notify("ending: what was asked is answered first; Ctrl-C again ends at once")

    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(seconds) + 1,
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    asyncio.run(Server(config).serve([listening]))


def read_token(file: Path | None, variable: str) -> str | None:
    """Return the token that requests must show, from a file or an environment variable, which is taken away.

    Raises:
        UserError: The file cannot be read, or what it holds is no token.
    """
    given = os.environ.pop(variable, None)  # Ray's processes, and whoever looks at them, need not have it
    where = variable
    if file is not None:
        where = f"--token-file {file}"
        try:
            given = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UserError(f"it cannot be read ({reason})", where=where) from None
    if given is None:
        return None
    token = given.strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or len(token.split()) != 1:
        raise UserError(
            "this is no token",
            where=where,
            expected=f"{_SHORTEST_TOKEN} letters, digits and signs or more in a line, such as openssl rand -hex 32 gives",
        )
    return token
