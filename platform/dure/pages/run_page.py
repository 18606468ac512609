"""The page of one run: what it reached and what that is worth, its curves, its examples, and where all comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dure.files import write_text
from dure.metrics.metric import BASELINE, TEST, UNTRAINED, Metric, recorded, under
from dure.pages.run_facts import best_metric, experiment_of, run_facts
from dure.pages.shared_sections import (
    Runs,
    examples_section,
    foldable,
    forecast_section,
    lineage_section,
    machine_section,
    points_of,
    trouble_section,
)
from dure.reporting.columns import Column, column
from dure.reporting.curves import CURVES, RunCurves, plot_run
from dure.reporting.figures import class_figure, is_speed
from dure.reporting.marks import Computation, Key, Source, Sources, sentence
from dure.reporting.page import REPORT, Command, Inline, Page, Pairs, Picture, Section, Table
from dure.reporting.plots import Drawing
from dure.reporting.summary import class_columns
from dure.runs.folder import RunFolder

RUN = "run"
COMPUTATIONS: Mapping[str, Computation] = {RUN: lambda folders: run_facts(folders[0])}
"""What the pages of runs compute."""
_REHEARSED = (
    "This was a rehearsal: a miniature with random weights trained on few rows. Its scores say that everything works, "
    "and nothing about the real model."
)


def leave_run_report(path: Path) -> None:
    """Write the curves of a run and its page into its folder.

    Raises:
        UserError: A record of it is broken.
        OSError: They cannot be written.
    """
    sources = Sources(path, COMPUTATIONS)
    page = page_of_run(path, sources)
    curves = RunCurves.of(path, sources.computed(RUN, path).get("name"))
    if curves.records:
        plot_run(path / CURVES, curves)
    write_text(path / REPORT, page.html(path))


def page_of_run(path: Path, sources: Sources) -> Page:
    """Return the page of a run with records that others may share.

    Raises:
        UserError: A record of it is broken.
    """
    facts = sources.computed(RUN, path)
    runs = Runs({facts.get("name"): path}, facts, sources)
    result = sources.file(RunFolder(path).result)
    experiment = sources.file(RunFolder(path).experiment)
    curves = RunCurves.of(path, facts.get("name"))
    return page_around(
        [
            figures_section(runs, facts, result),
            curves_section(curves, best_metric(path)) if curves.records else None,
        ],
        runs,
        title=facts.mark("name"),
        lead=sentence("Run · {} · {}", facts.mark("state"), experiment.mark("experiment", "description")),
        ended=[(result, ())],
    )


def page_around(
    shown: Sequence[Section | None],
    runs: Runs,
    *,
    title: Inline,
    lead: Inline,
    ended: Sequence[tuple[Source, tuple[Key, ...]]],
) -> Page:
    """Return a page with the sections that those of runs and of studies have in common.

    ``shown`` stands between the verdict and the forecasts; ``ended`` is where records say how each run or trial ended.
    """
    sections = [
        Section("Verdict", [points_of(runs.facts, "sentences")]) if runs.facts.get("sentences") else None,
        *shown,
        forecast_section(runs),
        examples_section(runs),
        trouble_section(runs, ended),
        machine_section(runs),
        lineage_section(runs, Command(runs.facts.mark("command"))),
    ]
    is_rehearsal = any(
        experiment_of(each).get("rehearsal", {}).get("enabled") for each in runs.folders.values()
    )
    return Page(
        title=title,
        lead=lead,
        sections=[section for section in sections if section is not None],
        sources=runs.sources,
        notes=[_REHEARSED] if is_rehearsal else (),
    )


def figures_section(runs: Runs, facts: Source, result: Source, *keys: str) -> Section:
    """Return the figures of a run, of its classes, and what it took."""
    definitions = runs.result(runs.first).get("definitions")
    names = [*(result.get(*keys, "metrics") or {})]
    shown = [name for name in names if not is_speed(name) and class_figure(name) is None]
    validated = [name for name in shown if name.startswith("eval_")]
    metrics = [recorded({"definitions": definitions}, name) for name in validated]
    labels = [
        result.label(metric, *keys, "metrics", name, written="label")
        for name, metric in zip(validated, metrics, strict=True)
    ]

    def figures(heading: str, prefix: str) -> Column:
        cells = [
            result.figure(*keys, "metrics", under(metric.name, prefix), metric=metric) for metric in metrics
        ]
        return column(heading, cells)

    gains = [facts.change("gains", metric.name, "baseline", metric=metric) for metric in metrics]
    columns = [
        column("metric", labels, is_text=True),
        figures("validation", "eval_"),
        figures("trivial baseline", BASELINE),
        column("above baseline", gains),
        figures("untrained", UNTRAINED),
        *(
            [figures("test", TEST), figures("trivial on test", BASELINE + TEST)]
            if any(name.startswith("test_") for name in shown)
            else []
        ),
    ]
    table = [Table("What it reached at its best checkpoint", columns)] if validated else []
    classes = class_columns(result, *keys, "metrics")
    by_class = [foldable(Table("Classes, on the validation rows", classes))] if classes else []
    return Section("Figures", [*table, *by_class, _cost(result, keys)])


def curves_section(curves: RunCurves, metric: Metric) -> Section:
    """Return the curves of one run, with words on what its metric did for whoever cannot see them."""
    drawing = Drawing(_told_curves(curves, metric))
    plot_run(drawing, curves)
    caption = "Losses, scores and learning rate over the epochs; the dashed lines are the trivial baseline."
    return Section("Curves", [Picture(caption, drawing)])


def _cost(result: Source, keys: tuple[str, ...]) -> Pairs:
    def figure(name: str, written: str) -> Inline:
        return result.mark(*keys, "metrics", name, written=written)

    return Pairs(
        [
            ("time", result.mark(*keys, "seconds", written="duration")),
            ("steps", figure("steps", "count")),
            ("training rows a second", figure("train_samples_per_second", "digits")),
            ("peak memory", figure("peak_memory_mb", "memory")),
            ("times out of memory", figure("num_oom", "count")),
            ("restarts", figure("num_restarts", "count")),
        ]
    )


def _told_curves(curves: RunCurves, metric: Metric) -> str:
    """Say what the curves show."""
    line = curves.curve(metric.name, "")
    if not line.points:
        return f"Curves of {curves.name}: the training loss and the learning rate over the epochs."
    factor = 100 if metric.in_percent else 1
    first, last = (f"{factor * point[1]:.4g}" for point in (line.points[0], line.points[-1]))
    unit = " %" if metric.in_percent else ""
    return f"Curves of {curves.name}: over {len(line.points)} validations {metric.name} went from {first} to {last}{unit}."
