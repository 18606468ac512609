"""Score predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("score", place=200)
def score(
    predictions: Annotated[Path, typer.Argument(help="Table of predictions.", metavar="PREDICTIONS")],
    references: Annotated[Path, typer.Argument(help="Table of references.", metavar="REFERENCES")],
    overrides: options.Reading = None,
    id_column: Annotated[str, typer.Option(help="Column that joins the two.")] = "fname",
    prediction_column: Annotated[str, typer.Option(help="Column of the predictions.")] = "summary",
    reference_columns: Annotated[
        str, typer.Option(help="Columns of the references, with commas.")
    ] = "summary",
    tokenizer: Annotated[
        Literal["morpheme", "whitespace", "whitespace_markers", "character", "default"],
        typer.Option(
            help="How ROUGE cuts text: whitespace is str.split, default rouge_score's own, for English."
        ),
    ] = "morpheme",
    multi_reference: Annotated[
        Literal["best", "mean"], typer.Option(help="With several references: the best by F1, or their mean.")
    ] = "best",
    task: Annotated[
        Literal["generation", "classification"], typer.Option(help="ROUGE, or accuracy and F1 of classes.")
    ] = "generation",
    as_json: options.Json = False,
) -> None:
    """Score predictions against references: ROUGE, or accuracy and F1."""
    from dure import api
    from dure.reporting.summary import score_table

    scores = api.score(
        predictions,
        references,
        id_column=id_column,
        prediction_column=prediction_column,
        reference_columns=[column.strip() for column in reference_columns.split(",") if column.strip()],
        tokenizer=tokenizer,
        task=task,
        multi_reference=multi_reference,
        overrides=overrides or (),
    )
    print_result(scores, score_table(scores), as_json=as_json)
