"""Sample corpora as CSV files, shaped as a competition shapes its own: the truth of the test set lies apart."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dure.files import make_folder, written_beside


def write_corpus(
    folder: Path, corpus: Mapping[str, Sequence[Any]], columns: Sequence[str], *, id_column: str, truth: str
) -> dict[str, Path]:
    """Write the splits of a corpus as CSV files in UTF-8; line breaks stand as they are inside quoted cells.

    Args:
        folder: Where to; made when it is not there.
        corpus: The splits ``train``, ``dev`` and ``test``; their rows are dataclasses.
        columns: All columns, in their order.
        id_column: The column that joins ``test.csv``, which lacks the truth, to ``test_reference.csv``, which
            has nothing beside it.
        truth: The column that is to be predicted.

    Returns:
        The paths by name: ``train``, ``dev``, ``test`` and ``test_reference``.

    Raises:
        UserError: The folder cannot be written to.
    """
    make_folder(folder, where=f"--output {folder}")
    tables = {
        "train": ("train", columns),
        "dev": ("dev", columns),
        "test": ("test", [column for column in columns if column != truth]),
        "test_reference": ("test", [id_column, truth]),
    }
    paths = {name: folder / f"{name}.csv" for name in tables}
    for name, (split, chosen) in tables.items():
        with written_beside(paths[name]) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, chosen, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in corpus[split])
    return paths
