"""What came with dure: its experiments and samples, and what their files may say."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_json, print_result
from dure.config.families import family_module


@verb("list", place=220)
def list_() -> None:
    """List experiments, studies and profiles."""
    from dure import api
    from dure.reporting.summary import catalogue_table

    catalogue = api.catalogue()
    print_result(catalogue, catalogue_table(catalogue))


@verb("schema", place=230, has_json=False)
def schema(
    kind: Annotated[
        Literal["experiment", "study", "space", "profile"],
        typer.Argument(help="What the schema is of.", metavar="KIND"),
    ] = "experiment",
    family: Annotated[
        str | None,
        typer.Option(
            help="Print what task: takes, which columns are read and which metrics there are with this family.",
            metavar="MODULE",
            autocompletion=options.family_names,
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of an experiment, a study, a search space or a profile; or what a family takes."""
    from dure.cli.json_schema import family_schema, json_schema

    print_json(json_schema(kind) if family is None else family_schema(family))


@verb("sample", place=210)
def sample(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.", metavar="DIR")],
    corpus: Annotated[
        str,
        typer.Argument(
            help="Dialogues with summaries, reviews with classes, texts with emotions, dilemmas with many targets, chats, or preferences.",
            metavar="[dialogues|reviews|emotions|dilemmas|chats|preferences]",
            autocompletion=options.corpus_names,
        ),
    ] = "dialogues",
    label_noise: Annotated[
        float,
        typer.Option(
            help="Part of the training targets that are swapped; only for dilemmas.", metavar="PART"
        ),
    ] = 0.0,
    force: options.Force = False,
) -> None:
    """Write an embedded Korean sample corpus: as CSV, dilemmas and chats as JSON lines."""
    from dure.data.writing import place_files

    write_sample = family_module("trainables.samples").write_sample
    with TemporaryDirectory() as folder:
        written: dict[str, Path] = write_sample(corpus, Path(folder), label_noise=label_noise)
        paths = place_files(written, output, force=force)
    files = {name: str(path) for name, path in paths.items()}
    print_result(files, "\n".join(files.values()))
