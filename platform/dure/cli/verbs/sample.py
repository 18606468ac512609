"""Write an embedded corpus."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result
from dure.config.families import family_module


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
    as_json: options.Json = False,
) -> None:
    """Write an embedded Korean sample corpus: as CSV, dilemmas and chats as JSON lines."""
    from dure.data.writing import place_files

    write_sample = family_module("trainables.samples").write_sample
    with TemporaryDirectory() as folder:
        written: dict[str, Path] = write_sample(corpus, Path(folder), label_noise=label_noise)
        paths = place_files(written, output, force=force)
    files = {name: str(path) for name, path in paths.items()}
    print_result(files, "\n".join(files.values()), as_json=as_json)
