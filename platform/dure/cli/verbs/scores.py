"""Scores: of a run on a table, and of any predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("evaluate", place=195)
def evaluate(
    run: options.Run,
    table: Annotated[str, typer.Argument(help="Table with inputs and targets.", metavar="TABLE")],
    overrides: options.Reading = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold of a cross-validation whose model is scored.", metavar="N")
    ] = None,
    profile: options.ProfileOption = None,
    trust_code: options.TrustCode = False,
) -> None:
    """Score the final model of a run on a table, with the metrics of its validation."""
    from dure import api
    from dure.reporting.console import progress_bar
    from dure.reporting.summary import evaluation_report

    with progress_bar("evaluating") as progress:
        found = api.evaluate(
            run,
            table,
            overrides=overrides or (),
            fold=fold,
            profile=profile,
            notify=progress.say,
            trust_code=trust_code,
        )
    print_result(found, evaluation_report(found))


IdColumn = Annotated[
    str | None,
    typer.Option(
        help="Column that joins the two; found by its name, else rows pair by their order.",
        metavar="NAME",
    ),
]
PredictionColumn = Annotated[
    str | None,
    typer.Option(help="Column of the predictions; found by its name when not given.", metavar="NAME"),
]
ReferenceColumns = Annotated[
    str | None,
    typer.Option(
        help="Columns of the references, with commas; found by their names when not given.",
        metavar="NAMES",
    ),
]
Tokenizer = Annotated[
    Literal["morpheme", "whitespace", "whitespace_markers", "character", "default"],
    typer.Option(
        help="How ROUGE cuts text: whitespace is str.split, default rouge_score's own, for English."
    ),
]
MultiReference = Annotated[
    Literal["best", "mean"], typer.Option(help="With several references: the best by F1, or their mean.")
]
Task = Annotated[
    Literal["generation", "classification", "number"] | None,
    typer.Option(
        help="ROUGE, accuracy and F1 of classes, or correlation and squared error of numbers; by the columns when not given."
    ),
]
LabelSeparator = Annotated[
    str | None,
    typer.Option(help="What stands between several classes in a cell; | where that occurs.", metavar="TEXT"),
]
Metric = Annotated[
    list[str] | None,
    typer.Option(
        help="Further metric of the evaluate library, by the folder of its script or by name; its code is run.",
        metavar="METRIC",
    ),
]


@verb("score", place=200)
def score(
    predictions: Annotated[Path, typer.Argument(help="Table of predictions.", metavar="PREDICTIONS")],
    references: Annotated[Path, typer.Argument(help="Table of references.", metavar="REFERENCES")],
    overrides: options.Reading = None,
    id_column: IdColumn = None,
    prediction_column: PredictionColumn = None,
    reference_columns: ReferenceColumns = None,
    tokenizer: Tokenizer = "morpheme",
    multi_reference: MultiReference = "best",
    task: Task = None,
    label_separator: LabelSeparator = None,
    metric: Metric = None,
) -> None:
    """Score predictions against references: ROUGE, accuracy and F1, or correlation and squared error."""
    from dure import api
    from dure.reporting.summary import score_table

    scores = api.score(
        predictions,
        references,
        id_column=id_column,
        prediction_column=prediction_column,
        reference_columns=reference_columns
        and [name.strip() for name in reference_columns.split(",") if name.strip()],
        tokenizer=tokenizer,
        task=task,
        multi_reference=multi_reference,
        label_separator=label_separator,
        metrics=metric or (),
        overrides=overrides or (),
    )
    print_result(scores, score_table(scores))
