"""Following a run that trains in other processes, through the records in its folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dure.events import RunListener, RunProgress
from dure.files import read_json_lines

_SECONDS_BETWEEN_LOOKS = 1.0
_NOT_METRICS = ("kind", "step", "total_steps", "epoch", "seconds")


@contextmanager
def following(metrics: Path, listeners: Sequence[RunListener]) -> Iterator[None]:
    """Tell listeners here of every new record of ``metrics.jsonl`` while the body runs."""
    seen = len(read_json_lines(metrics))
    ended = threading.Event()

    def look() -> None:
        nonlocal seen
        records = read_json_lines(metrics)
        # A resumed run drops the records of the steps that come again.
        seen = min(seen, len(records))
        for record in records[seen:]:
            progress = RunProgress(
                kind=record["kind"],
                step=record["step"],
                total_steps=record["total_steps"],
                epoch=record["epoch"],
                seconds=record["seconds"],
                metrics={
                    key: float("nan") if value is None else value
                    for key, value in record.items()
                    if key not in _NOT_METRICS
                },
            )
            for listener in listeners:
                listener.progressed(progress)
        seen = len(records)

    def watch() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            look()

    thread = threading.Thread(target=watch, name="dure-follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()
