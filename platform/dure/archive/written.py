"""The files of a comparison: record, tables and curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dure.archive.comparison import Comparison
from dure.archive.comparison_plot import plot_comparison
from dure.archive.comparison_table import comparison_table
from dure.archive.settings import Setting
from dure.data.writing import place_files
from dure.files import write_text
from dure.metrics.metric import Metric
from dure.reporting.columns import plain_text

_NAMES = ("comparison.json", "comparison.txt", "comparison.png")


def write_comparison(
    comparison: Comparison, settings: Sequence[Setting], folder: Path, *, force: bool
) -> None:
    """Write ``comparison.json``, ``.txt`` and ``.png`` into a folder, all of them or none.

    Args:
        comparison: What was found.
        settings: What was compared.
        folder: Made if it is not there.
        force: Whether files that are there, and say something else, are replaced.

    Raises:
        UserError: The folder cannot be written to, or such a file is there.
    """
    metric = Metric(comparison.metric, comparison.direction, comparison.unit)
    order = {each.name: place for place, each in enumerate(comparison.settings)}
    with TemporaryDirectory() as beside:
        record, text, curves = (Path(beside, name) for name in _NAMES)
        comparison.write(record)
        write_text(text, plain_text(comparison_table(comparison)))
        plot_comparison(curves, sorted(settings, key=lambda each: order[each.name]), metric)
        # The picture is there in every format that was asked for.
        place_files({file.name: file for file in sorted(Path(beside).iterdir())}, folder, force=force)
