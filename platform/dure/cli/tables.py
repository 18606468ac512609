"""Verbs that read and write: predict, score, sample, list and schema."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import app
from dure.cli.printing import print_json, print_result, results_only_on_stdout, tell
from dure.config.families import family_module

Reading = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="How the table is read, such as data.encoding=cp949 or data.on_bad_row=skip.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]


@app.command()
@results_only_on_stdout
def predict(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or of a cross-validation.", metavar="RUN")
    ],
    source: Annotated[str, typer.Argument(help="Table to predict.", metavar="INPUT")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write: .csv, .tsv, .jsonl or .xlsx.", metavar="FILE"),
    ],
    overrides: Reading = None,
    fold: Annotated[
        int | None,
        typer.Option(help="Fold whose model predicts; all together when not given.", metavar="N"),
    ] = None,
    profile: options.ProfileOption = None,
    trust_code: options.TrustCode = False,
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Predict a table with the best checkpoint of a run, or with those of all folds together."""
    from transformers.utils import logging

    from dure import api
    from dure.reporting.console import progress_bar

    logging.disable_progress_bar()  # the bar of a library would break into dure's own
    with progress_bar("predicting") as progress:
        outcome = api.predict(
            run,
            source,
            output,
            overrides=overrides or (),
            force=force,
            fold=fold,
            profile=api.choose_profile(profile, tell),
            progress=progress,
            tell=tell,
            trust_code=trust_code,
        )
    text = f"{outcome['rows']:,} predictions in {outcome['output']}"
    if outcome["skipped"]:
        text += f", and {outcome['skipped']:,} without one (rows that were skipped)"
    print_result(outcome, text, as_json=as_json)


@app.command()
@results_only_on_stdout
def score(
    predictions: Annotated[Path, typer.Argument(help="Table of predictions.", metavar="PREDICTIONS")],
    references: Annotated[Path, typer.Argument(help="Table of references.", metavar="REFERENCES")],
    overrides: Reading = None,
    id_column: Annotated[str, typer.Option(help="Column that joins the two.")] = "fname",
    prediction_column: Annotated[str, typer.Option(help="Column of the predictions.")] = "summary",
    reference_columns: Annotated[
        str, typer.Option(help="Columns of the references, with commas.")
    ] = "summary",
    tokenizer: Annotated[
        Literal["morpheme", "whitespace", "character", "default"],
        typer.Option(help="How ROUGE cuts text; default is rouge_score's own, for English."),
    ] = "morpheme",
    multi_reference: Annotated[
        Literal["best", "mean"], typer.Option(help="With several references: the best by F1, or their mean.")
    ] = "best",
    task: Annotated[
        Literal["summarization", "classification"], typer.Option(help="ROUGE, or accuracy and F1 of classes.")
    ] = "summarization",
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


@app.command()
@results_only_on_stdout
def sample(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.", metavar="DIR")],
    corpus: Annotated[
        str,
        typer.Argument(
            help="Dialogues with summaries, reviews with classes, texts with emotions, or dilemmas with many targets.",
            metavar="[dialogues|reviews|emotions|dilemmas]",
            autocompletion=options.corpus_names,
        ),
    ] = "dialogues",
    label_noise: Annotated[
        float,
        typer.Option(
            help="Part of the training targets that are swapped; only for dilemmas.", metavar="PART"
        ),
    ] = 0.0,
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Write an embedded Korean sample corpus: as CSV, and the dilemmas as JSON lines."""
    from dure.data.writing import place_files

    write_sample = family_module("trainables.samples").write_sample
    with TemporaryDirectory() as folder:
        written: dict[str, Path] = write_sample(corpus, Path(folder), label_noise=label_noise)
        paths = place_files(written, output, force=force)
    files = {name: str(path) for name, path in paths.items()}
    print_result(files, "\n".join(files.values()), as_json=as_json)


@app.command(name="list")
@results_only_on_stdout
def list_(as_json: options.Json = False) -> None:
    """List experiments, studies and profiles."""
    from dure import api
    from dure.reporting.summary import catalogue_table

    catalogue = api.catalogue()
    print_result(catalogue, catalogue_table(catalogue), as_json=as_json)


@app.command()
@results_only_on_stdout
def schema(
    kind: Annotated[
        Literal["experiment", "study", "space", "profile"],
        typer.Argument(help="Of what.", metavar="KIND"),
    ] = "experiment",
) -> None:
    """Print the JSON Schema of an experiment, a study, a search space or a profile."""
    from dure.cli.json_schema import json_schema

    print_json(json_schema(kind))
