"""Requests that wait, and become batches as soon as a replica is free.

``ray.serve.batch`` is not used. It closes a batch when its time of waiting is over, whether or not the model is free:
without that time every request under load is a batch of its own, and with it the only client waits for nobody. It
counts requests and not texts, fails all requests of a batch with one, and computes those whose clients have gone. Here
a batch is whatever waits when a replica is free, so that one client waits for nothing and many share batches; and a
batch that fails, or whose replica dies, is asked again request by request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ray.exceptions import RayActorError

from dure.errors import DureError, UserError
from dure.serving.figures import Figures
from dure.serving.predictor import Answer, Row
from dure.serving.refusals import RefusedError, busy

logger = logging.getLogger(__name__)

Send = Callable[[list[Sequence[Row]]], Awaitable[list[Answer | UserError]]]
"""Has a free replica predict the rows of several requests."""
_MOST_DEATHS = 2
"""Replicas that may die of one request."""


@dataclass
class _Asked:
    rows: Sequence[Row]
    answer: asyncio.Future[Answer]
    is_alone: bool = False
    deaths: int = 0


class Batcher:
    """Shares requests out among replicas.

    A request with more than ``most_texts`` is a batch of its own; ``most_waiting`` requests may wait.
    """

    def __init__(self, send: Send, *, most_texts: int, most_waiting: int, figures: Figures) -> None:
        self._send = send
        self._most_texts = most_texts
        self._most_waiting = most_waiting
        self._figures = figures
        self._waiting: deque[_Asked] = deque()
        self._is_asked = asyncio.Event()
        self._lanes: list[asyncio.Task[None]] = []

    def start(self, num_replicas: int) -> None:
        """Begin to send batches, at most one to a replica at a time."""
        self._lanes = [asyncio.create_task(self._serve()) for _ in range(num_replicas)]

    def stop(self) -> None:
        """Send no more."""
        for lane in self._lanes:
            lane.cancel()

    async def ask(self, rows: Sequence[Row], seconds: float) -> Answer:
        """Return what is predicted of rows.

        Raises:
            RefusedError: Too many requests wait, the time is over, or the model fails on these rows.
        """
        if len(self._waiting) >= self._most_waiting:
            raise busy(f"{len(self._waiting):,} requests wait already")
        asked = _Asked(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._is_asked.set()
        self._figures.waiting.set(len(self._waiting))
        try:
            return await asyncio.wait_for(asked.answer, seconds)
        except TimeoutError:
            raise RefusedError(
                504,
                f"there was no answer within {seconds:.3g} seconds",
                hint="fewer or shorter texts in a request; or dure serve with more --replicas, or a larger --time-limit",
            ) from None

    async def _serve(self) -> None:
        while True:
            batch = await self._next()
            started = time.perf_counter()
            try:
                answers = await self._send([each.rows for each in batch])
            except Exception as error:  # whatever a model or a cluster does, the next batch is served
                self._failed(batch, error)
                continue
            self._figures.batch(sum(len(each.rows) for each in batch), time.perf_counter() - started)
            for asked, answer in zip(batch, answers, strict=True):
                if asked.answer.done():
                    continue
                if isinstance(answer, UserError):
                    asked.answer.set_exception(RefusedError.of(answer))
                else:
                    asked.answer.set_result(answer)

    async def _next(self) -> list[_Asked]:
        """Return what makes up the next batch, once there is something."""
        batch: list[_Asked] = []
        num_texts = 0
        while not batch:
            while self._waiting:
                asked = self._waiting[0]
                if asked.answer.done():  # its client went, or its time is over
                    self._waiting.popleft()
                    continue
                if batch and (
                    asked.is_alone or batch[0].is_alone or num_texts + len(asked.rows) > self._most_texts
                ):
                    break
                batch.append(self._waiting.popleft())
                num_texts += len(asked.rows)
            if not batch:
                self._is_asked.clear()
                await self._is_asked.wait()
        self._figures.waiting.set(len(self._waiting))
        return batch

    def _failed(self, batch: list[_Asked], error: Exception) -> None:
        """Ask again what may succeed alone or elsewhere, before all that waits, and give up on the rest."""
        is_dead = isinstance(error, RayActorError)
        logger.warning("a batch of %d requests failed: %s", len(batch), error)
        for asked in reversed(batch):
            if asked.answer.done():
                continue
            asked.deaths += is_dead and len(batch) == 1
            if len(batch) > 1 or (is_dead and asked.deaths < _MOST_DEATHS):
                asked.is_alone = True
                self._waiting.appendleft(asked)
                self._figures.retries.inc()
            elif is_dead or isinstance(error, DureError):
                asked.answer.set_exception(busy("the replica that had the request is gone"))
            else:
                logger.error("the model fails on a request", exc_info=error)
                asked.answer.set_exception(
                    RefusedError(
                        500,
                        "the model fails on these texts",
                        hint="one text at a time shows which it is; the server's output says why",
                    )
                )
        self._is_asked.set()
