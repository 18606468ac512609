"""The files of a comparison: record, tables and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dure.archive.comparison import Comparison
from dure.archive.comparison_table import comparison_table
from dure.archive.settings import Setting
from dure.data.writing import place_files
from dure.files import write_text
from dure.metrics.metric import Metric
from dure.reporting.columns import plain_text
from dure.reporting.curves import RunCurves, plot_runs
from dure.reporting.figures import metric_label, shortened

_LONGEST_NAME = 40
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
        ordered = sorted(settings, key=lambda each: order[each.name])
        runs = [
            RunCurves.of(run.path, shortened(each.name, _LONGEST_NAME))
            for each in ordered
            for run in each.runs
        ]
        plot_runs(curves, runs, replace(metric, name=f"eval_{metric.name}"), title=metric_label(metric))
        # The picture is there in every format that was asked for.
        place_files({file.name: file for file in sorted(Path(beside).iterdir())}, folder, force=force)
