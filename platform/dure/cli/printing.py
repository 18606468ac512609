"""Results go to stdout, everything else to stderr."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

from dure.secrets import redacted, without_passwords

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dure.config.section import Section

logger = logging.getLogger(__name__)


def notify(message: str) -> None:
    """Show one line of progress."""
    print(redacted(message), file=sys.stderr, flush=True)


_results: TextIO | None = None
"""Where results go while libraries' output is kept out of stdout; stdout itself otherwise."""
_as_json = False


class _Log(io.TextIOBase):
    """Takes what libraries print as lines for the log, which ``--verbose`` shows."""

    def write(self, text: str) -> int:
        """Log every line that says something."""
        for line in text.splitlines():
            if line.strip():
                logger.info(line)
        return len(text)


@contextmanager
def results(*, as_json: bool) -> Iterator[None]:
    """Keep stdout for the results that are printed in the body, since some libraries print when they are imported.

    With ``as_json`` they are one JSON object.
    """
    global _results, _as_json
    _results, _as_json = sys.stdout, as_json
    try:
        with redirect_stdout(_Log()):
            yield
    finally:
        _results, _as_json = None, False


def is_json() -> bool:
    """Return whether results are one JSON object."""
    return _as_json


def print_json(value: Any) -> None:
    """Print one JSON object; a terminal that lacks a character gets its escape, which is JSON too.

    What is no finite number, such as a correlation with a constant, is null, as JSON has it.
    """
    file = _results or sys.stdout
    value = json.loads(json.dumps(value, default=str), parse_constant=lambda word: None)
    text = without_passwords(json.dumps(value, ensure_ascii=False, indent=2))
    try:
        text.encode(file.encoding or "utf-8")
    except UnicodeEncodeError:
        text = without_passwords(json.dumps(value, indent=2))
    print(text, file=file)


def print_text(text: str) -> None:
    """Print text as it is, at once, such as what a job has printed."""
    print(text, end="", flush=True, file=_results or sys.stdout)


def print_result(value: Any, shown: RenderableType) -> None:
    """Print a result for people, or with ``--json`` as one JSON object."""
    from rich.console import Console

    if _as_json:
        print_json(value)
    else:
        # In a pipe there is no width to fit into, and rich would assume 80 columns.
        file = _results or sys.stdout
        width = None if file.isatty() else 10_000
        console = Console(file=file, width=width, soft_wrap=isinstance(shown, str))
        console.print(shown, markup=False, highlight=False)


def print_yaml(study: Section | None, experiments: Sequence[Section]) -> None:
    """Print what would run: a study and its experiments as YAML documents, or as one JSON object.

    Without a study it is one experiment.
    """
    from dure.config.loading import dump_yaml

    if _as_json:
        values = [section.model_dump(mode="json") for section in experiments]
        print_json(
            values[0] if study is None else {"study": study.model_dump(mode="json"), "experiments": values}
        )
    else:
        sections = experiments if study is None else (study, *experiments)
        text = without_passwords("---\n".join(dump_yaml(section) for section in sections))
        print(text, end="", file=_results or sys.stdout)
