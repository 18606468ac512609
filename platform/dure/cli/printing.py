"""Results go to stdout, everything else to stderr."""

from __future__ import annotations

import functools
import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, TypeVar

from dure.secrets import redacted, without_passwords

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dure.config.section import Section

logger = logging.getLogger(__name__)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def notify(message: str) -> None:
    """Show one line of progress."""
    print(redacted(message), file=sys.stderr, flush=True)


_results: TextIO | None = None
"""Where results go while libraries' output is kept out of stdout; stdout itself otherwise."""


class _Log(io.TextIOBase):
    """Takes what libraries print as lines for the log, which ``--verbose`` shows."""

    def write(self, text: str) -> int:
        """Log every line that says something."""
        for line in text.splitlines():
            if line.strip():
                logger.info(line)
        return len(text)


def results_only_on_stdout(verb: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Keep stdout for what the verb prints: some libraries print when they are imported."""

    @functools.wraps(verb)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        global _results
        _results = sys.stdout
        try:
            with redirect_stdout(_Log()):
                return verb(*args, **kwargs)
        finally:
            _results = None

    return run


def print_json(value: Any) -> None:
    """Print one JSON object; a terminal that lacks a character gets its escape, which is JSON too."""
    file = _results or sys.stdout
    text = without_passwords(json.dumps(value, ensure_ascii=False, indent=2, default=str))
    try:
        text.encode(file.encoding or "utf-8")
    except UnicodeEncodeError:
        text = without_passwords(json.dumps(value, indent=2, default=str))
    print(text, file=file)


def print_text(text: str) -> None:
    """Print text as it is, at once, such as what a job has printed."""
    print(text, end="", flush=True, file=_results or sys.stdout)


def print_result(value: Any, shown: RenderableType, *, as_json: bool) -> None:
    """Print a result for people, or as one JSON object."""
    from rich.console import Console

    if as_json:
        print_json(value)
    else:
        # In a pipe there is no width to fit into, and rich would assume 80 columns.
        file = _results or sys.stdout
        width = None if file.isatty() else 10_000
        console = Console(file=file, width=width, soft_wrap=isinstance(shown, str))
        console.print(shown, markup=False, highlight=False)


def print_yaml(study: Section | None, experiments: Sequence[Section], *, as_json: bool) -> None:
    """Print what would run: a study and its experiments as YAML documents, or as one JSON object.

    Without a study it is one experiment.
    """
    from dure.config.loading import dump_yaml

    if as_json:
        values = [section.model_dump(mode="json") for section in experiments]
        print_json(
            values[0] if study is None else {"study": study.model_dump(mode="json"), "experiments": values}
        )
    else:
        sections = experiments if study is None else (study, *experiments)
        text = without_passwords("---\n".join(dump_yaml(section) for section in sections))
        print(text, end="", file=_results or sys.stdout)
