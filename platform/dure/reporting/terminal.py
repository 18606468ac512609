"""Where lines for the user go: the terminal, also while the process's output is captured into a log."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Self, TextIO, cast

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live
from rich.text import Text

from dure.secrets import redacted

REFRESHES_PER_SECOND = 2.0


class Terminal:
    """Prints lines and, on a real terminal, one live block beneath them, which goes at the end of a ``with`` at the latest.

    Args:
        file: Stream to write to. When it is not given, the stderr of this moment: its descriptor is
            duplicated, so that redirecting descriptor 2 later does not take the user's lines along.
            Pickling leaves the stream behind; the copy takes the stderr of the process that it wakes up in.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        stream = _kept_stderr() if file is None else file
        self.live = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        """Whether a block can be shown; otherwise everything is plain lines."""
        self.console = Console(
            file=cast(TextIO, _Tolerant(stream)),
            force_terminal=self.live,
            force_interactive=self.live,
            highlight=False,
        )
        self._stream = stream
        self._block: Live | None = None
        self._told: set[str] = set()

    def __reduce__(self) -> tuple[type[Terminal], tuple[()]]:
        return Terminal, ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def say(self, line: str, style: str = "") -> None:
        """Print one line, above the block when there is one."""
        self.console.print(Text(redacted(line), style=style), soft_wrap=True)

    def tell_once(self, message: str, *, key: str | None = None) -> None:
        """Print a message unless one with the same key was printed before; the key is the message itself."""
        if (key or message) not in self._told:
            self._told.add(key or message)
            self.say(message)

    def show(self, render: Callable[[int, int], RenderableType]) -> None:
        """Show a block until :meth:`clear`, redrawn twice a second; does nothing without a terminal.

        ``render`` returns the block for a width and a height in cells.
        """
        if not self.live:
            return
        self.clear()

        def drawn() -> RenderableType:
            self._measure()
            return render(self.console.width, self.console.height)

        self._block = Live(
            get_renderable=drawn,
            console=self.console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._block.start(refresh=True)
        # The block hides the cursor, which must come back however the process ends.
        atexit.register(self.clear)

    def clear(self) -> None:
        """Take the block away."""
        if self._block is not None:
            self._block.stop()
            self._block = None
            atexit.unregister(self.clear)

    def _measure(self) -> None:
        """Take the size of our own stream: rich looks at descriptors 0 to 2, which may all be redirected."""
        if "COLUMNS" in os.environ:
            return
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self._stream.fileno())
            if size.columns and size.lines:
                self.console.size = ConsoleDimensions(size.columns, size.lines)


class _Tolerant(io.TextIOBase):
    """A stream whose reader may go away: a closed terminal must not stop a training run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        encodable = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self._unless_lost(lambda: self._stream.write(encodable))
        return len(text)

    def flush(self) -> None:
        self._unless_lost(self._stream.flush)

    def _unless_lost(self, use: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            use()
        except (OSError, ValueError):  # Python says ValueError for a file that was closed.
            self._lost = True


def _kept_stderr() -> TextIO:
    if sys.stderr is None:  # Closed by the caller (`2>&-`).
        return io.StringIO()
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):
        return sys.stderr  # Not backed by a descriptor, as in a notebook.
    return os.fdopen(descriptor, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)
