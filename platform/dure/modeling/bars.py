"""The bars of libraries, which would break into what dure shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def bars_hidden() -> Iterator[None]:
    """Let transformers draw no bar in the body; whoever uses it beside dure has theirs again afterwards."""
    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_bars:
            logging.enable_progress_bar()
