"""The program: global behaviour of all verbs, and how errors end."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from dure.errors import DureError

app = typer.Typer(
    name="dure",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Distributed experiments on Ray Train and Ray Tune for fine-tuning NLP models.",
)


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what libraries log.")] = False,
) -> None:
    """Set what holds for every verb."""
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, stream=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits 0, 1 when a run failed, 2 when the user's input is wrong, 130 on Ctrl-C."""
    from dure.cli import studies, tables  # noqa: F401 - registers the verbs

    words = sys.argv[1:] if arguments is None else arguments
    # `--debug` and `--verbose` are accepted anywhere, since people put them last.
    flags = {"--debug", "--verbose", "-v"}
    words = [word for word in words if word in flags] + [word for word in words if word not in flags]
    try:
        result = app(args=words, standalone_mode=False)
    except DureError as error:
        _fail(error, str(error), error.exit_code, words)
    except KeyboardInterrupt:
        _fail(None, "interrupted", 130, words)
    except Exception as error:
        _end_of(error, words)
    else:
        sys.exit(result if isinstance(result, int) else 0)


def _end_of(error: Exception, words: list[str]) -> None:
    # The parser's own errors know their message and their exit code.
    show: Any = getattr(error, "format_message", None)
    if show is not None:
        usage = getattr(error, "ctx", None)
        text = f"{usage.get_usage()}\n{show()}" if usage else show()
        _fail(error, text, getattr(error, "exit_code", 2), words)
    if type(error).__name__ == "Abort":
        _fail(None, "interrupted", 130, words)
    text = " ".join(str(error).split())
    _fail(
        error,
        f"{type(error).__name__}: {text}\n  (a defect of dure or of a library; --debug shows where)",
        1,
        words,
    )


def _fail(error: Exception | None, text: str, code: int, words: list[str]) -> None:
    if error is not None and "--debug" in words:
        traceback.print_exception(error)
    print(f"dure: {text}", file=sys.stderr)
    sys.exit(code)
