"""What other libraries do otherwise for a while: attributes with another value, and no bars."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Let an attribute have another value while the body runs; a method is that of the class again afterwards."""
    before, is_own = getattr(owner, name), name in vars(owner)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own or not inspect.isroutine(getattr(type(owner), name, None)):
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def bars_hidden() -> Iterator[None]:
    """Let transformers draw no bar, which would break into what dure shows; afterwards whoever uses it has theirs again."""
    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_bars:
            logging.enable_progress_bar()
