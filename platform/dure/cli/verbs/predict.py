"""Predict texts or a table."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import is_json, print_result, print_text
from dure.errors import UserError

_STDIN = "-"
_Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="Table to predict, or - for a text on every line of standard input; and how the table is read, such as "
        "data.encoding=cp949.",
        metavar="[INPUT] [KEY=VALUE…]",
    ),
]
_Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--text", help="Text to predict, in place of a table; several times for several.", metavar="TEXT"
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File for the predictions of a table: .csv, .tsv, .jsonl, .parquet or .xlsx.",
        metavar="FILE",
    ),
]

_Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Predict a table with N processes of a Ray cluster, each with a model of its own; the file is the same.",
        metavar="N",
    ),
]
_Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a table that an earlier command did not end.")
]


@verb("predict", place=190)
def predict(
    run: options.Predictor,
    words: _Words = None,
    text: _Texts = None,
    output: _Output = None,
    fold: options.Fold = None,
    workers: _Workers = None,
    profile: options.ProfileOption = None,
    address: options.Address = None,
    resume: _Resume = False,
    force: options.Force = False,
    trust_code: options.TrustCode = False,
) -> None:
    """Predict texts, or a table, with the best checkpoint of a run or with those of all folds together."""
    from dure import api
    from dure.reporting.console import progress_bar

    tables, overrides = options.parted(words or ())
    source = _source(tables, text or [], overrides, output)
    if isinstance(source, list) and (workers is not None or resume):
        raise UserError(
            "this option is for tables, and texts were given",
            where="--resume" if workers is None else f"--workers {workers}",
            hint="leave it out",
        )
    with progress_bar("predicting") as progress:
        outcome = api.predict(
            run,
            source,
            output,
            overrides=overrides,
            force=force,
            resume=resume,
            fold=fold,
            profile=profile,
            workers=workers,
            address=address,
            progress=progress,
            notify=progress.say,
            trust_code=trust_code,
        )
    if isinstance(source, list):
        return _print_texts(source, outcome, in_lines=not text)
    without = (
        f", and {outcome['skipped']:,} without one (rows that were skipped)" if outcome["skipped"] else ""
    )
    print_result(outcome, f"{outcome['rows']:,} predictions in {outcome['output']}{without}")


def _source(
    tables: list[str], texts: list[str], overrides: list[str], output: Path | None
) -> str | list[str]:
    """Return the table to predict, or the texts."""
    if len(tables) + bool(texts) != 1:
        raise UserError(
            "both a table and texts are given" if tables and texts else f"{len(tables)} inputs are given",
            where="dure predict",
            expected="a table, - for standard input, or --text",
            hint='dure predict RUN --text "…", or dure predict RUN TABLE -o FILE',
        )
    if tables and tables[0] != _STDIN:
        return tables[0]
    if output is not None or overrides:
        raise UserError(
            "this is for tables; what is predicted of texts is printed",
            where=f"--output {output}" if output is not None else overrides[0],
            hint="leave it out; > FILE keeps what is printed",
        )
    if texts:
        for number, text in enumerate(texts, start=1):
            _check_text(text, f"--text (number {number} of {len(texts)})" if len(texts) > 1 else "--text")
        return texts
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    # Not splitlines, to which U+2028 or a form feed in a text is the end of a line too.
    lines = sys.stdin.read().removeprefix("\ufeff").removesuffix("\n").split("\n")
    if lines == [""]:
        raise UserError("it is empty", where="standard input", expected="a text on every line")
    for number, line in enumerate(lines, start=1):
        _check_text(line, f"standard input, line {number}")
    return lines


def _check_text(text: str, where: str) -> None:
    from dure.config.tree import is_torn
    from dure.data.canonical import is_blank

    if is_blank(text):
        raise UserError("the text is empty", where=where, expected="a text to predict")
    if is_torn(text):
        raise UserError("there are bytes that are not UTF-8", where=where, expected="a text in UTF-8")


def _print_texts(texts: list[str], outcome: list[dict[str, Any]], *, in_lines: bool) -> None:
    """Print what is predicted of texts: a table, or of lines of standard input a line for each."""
    from dure.reporting.summary import predictions_table
    from dure.runs.folder import PROBABILITY

    if in_lines and not is_json():
        for row in outcome:
            said = (str(value) for name, value in row.items() if not name.startswith(PROBABILITY))
            print_text("\t".join(" ".join(value.split()) for value in said) + "\n")
        return
    rows = [{"text": text, **row} for text, row in zip(texts, outcome, strict=True)]
    print_result({"predictions": rows}, predictions_table(rows))
