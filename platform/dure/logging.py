"""A log of a script or notebook that also shows what it takes, as the guides of the older system use it."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from dure.errors import UserError
from dure.secrets import redacted


class Logger:
    """Writes lines with their time to a file, and on request everything that is printed.

    That is what comes between :meth:`start_redirect` and :meth:`stop_redirect`. Passwords and keys are kept out.

    Raises:
        UserError: The file cannot be written.
    """

    def __init__(self, path: str | Path, print_also: bool = True) -> None:
        self.path = Path(path)
        self.print_also = print_also
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UserError(f"it cannot be written ({error.strerror})", where=str(path)) from None
        self._replaced: tuple[TextIO, TextIO] | None = None

    def write(self, message: str) -> None:
        """Write one line with its time."""
        line = f"{datetime.now():%Y-%m-%d %H:%M:%S} | {redacted(message)}\n"
        self._file.write(line)
        if self.print_also:
            (sys.stdout if self._replaced is None else self._replaced[0]).write(line)

    def info(self, message: str, *args: object) -> None:
        """Write one line, as :meth:`logging.Logger.info` takes it."""
        self.write(message % args if args else message)

    warning = error = info

    def start_redirect(self) -> None:
        """Take what is printed from now on, until :meth:`stop_redirect`; again it changes nothing."""
        if self._replaced is None:
            self._replaced = sys.stdout, sys.stderr
            shown = self._replaced if self.print_also else (None, None)
            sys.stdout, sys.stderr = (_Both(self._file, each) for each in shown)

    def stop_redirect(self) -> None:
        """Let go of what is printed."""
        if self._replaced is not None:
            sys.stdout, sys.stderr = self._replaced
            self._replaced = None

    def close(self) -> None:
        """Let go of everything; a closed log stays closed."""
        self.stop_redirect()
        self._file.close()

    def __enter__(self) -> Self:
        self.start_redirect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Both:
    """A stream that writes to a log, and to another stream if there is one, which answers all else."""

    def __init__(self, file: TextIO, shown: TextIO | None) -> None:
        self._file, self._shown = file, shown

    def write(self, text: str) -> int:
        if not self._file.closed:
            self._file.write(redacted(text))
        if self._shown is not None:
            self._shown.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shown or self._file, name)
