"""Text of a validation, written ahead of the loop that takes it batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from accelerate.data_loader import DataLoaderShard

from dure.data.collating import Batch
from dure.modeling.replaced import replaced

Write = Callable[[Iterator[Batch]], Iterator[Batch]]
"""Gives batches with what was written for them; it may take some more than it gave back."""


@contextlib.contextmanager
def texts_ahead(loader: Any, write: Write) -> Iterator[None]:
    """Let what a loader loads pass through ``write`` before accelerate sees which batch is the last.

    So the last one is known for what it is when its rows are gathered, however many batches were taken before.
    """
    if not isinstance(loader, DataLoaderShard):
        yield
        return
    with replaced(loader, "base_dataloader", _Written(loader.base_dataloader, write)):
        yield


class _Written:
    """A loader whose batches pass through something; all else is the loader's."""

    def __init__(self, loader: Any, write: Write) -> None:
        self._loader, self._write = loader, write

    def __iter__(self) -> Iterator[Batch]:
        return self._write(iter(self._loader))

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
