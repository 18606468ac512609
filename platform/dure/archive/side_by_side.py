"""One page of several runs and studies: their comparison first, then each with all that its own page has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from dure.archive.comparing import compare
from dure.archive.comparison_table import setting_columns
from dure.errors import UserError
from dure.metrics.metric import Metric
from dure.pages.run_facts import best_metric
from dure.pages.shared_sections import points_of
from dure.reporting.columns import Rows, column
from dure.reporting.curves import RunCurves, plot_runs
from dure.reporting.inline import Drawing
from dure.reporting.marks import Computation, Key, Source, Sources, listed, sentence
from dure.reporting.page import Block, Inline, Page, Pairs, Picture, Section, Table
from dure.runs.folder import STUDY_FILE
from dure.studies.reports import COMPUTATIONS as OF_EACH
from dure.studies.reports import page_at

SIDE_BY_SIDE = "comparison"


def comparison_facts(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what a comparison came to, without the paths that depend on where one asks; or why there is none."""
    try:
        compared = compare(paths)[0].as_json()
    except UserError as error:
        return {"sentences": [f"They are not compared: {error.problem}."]}
    for setting in compared["settings"]:
        del setting["runs"]
    compared["sentences"] += compared.pop("notes")
    return compared


COMPUTATIONS: Mapping[str, Computation] = {**OF_EACH, SIDE_BY_SIDE: comparison_facts}
"""What all pages compute."""


def side_by_side(paths: Sequence[Path], sources: Sources) -> Page:
    """Return one page of several runs and studies.

    Raises:
        UserError: A folder holds neither, or a record is broken.
    """
    facts = sources.computed(SIDE_BY_SIDE, *paths)
    pages = [page_at(path, sources) for path in paths]
    sections = [Section("Verdict", [points_of(facts, "sentences")])]
    if facts.get("settings"):
        sections += _compared(facts)
    sections += _curves([path for path in paths if not (path / STUDY_FILE).is_file()])
    for page in pages:
        verdict, *others = page.sections
        parts = [
            part for section in others for part in (Section(section.title, section.blocks), *section.parts)
        ]
        sections.append(Section(page.title, verdict.blocks, parts))
    lead = sentence("{}", Markup(" · ").join(escape(page.title) for page in pages))
    notes = list(dict.fromkeys(note for page in pages for note in page.notes))
    return Page("Runs side by side", lead, sections, sources, notes)


def _curves(runs: Sequence[Path]) -> list[Section]:
    """Return the curves of runs in one picture; nothing of fewer than two."""
    drawn = [curves for path in runs if (curves := RunCurves.of(path, path.name)).records]
    if len(drawn) < 2:
        return []
    drawing = Drawing(f"Curves of {', '.join(each.name for each in drawn)} over the epochs.")
    plot_runs(drawing, drawn, best_metric(runs[0]), title="")
    return [Section("Curves", [Picture("Every run; dashed: the trivial baseline.", drawing)])]


def _compared(facts: Source) -> list[Section]:
    metric = Metric(facts.get("metric"), facts.get("direction"), facts.get("unit"))
    sections = [Section("Scores", [_scores(facts, metric), *_settings(facts)])]
    if facts.get("pairs"):
        sections.append(Section("Row by row", [_pairs(facts)]))
    if facts.get("examples"):
        parts = [_example(facts, place) for place in range(len(facts.get("examples")))]
        sections.append(Section("Where they differ most", (), parts))
    return sections


def _scores(facts: Source, metric: Metric) -> Block:
    rows, settings = Rows.of(facts, "settings"), facts.get("settings")

    def measured_on(*at: Key) -> Inline:
        names = {"num_rows": "count", "split": "text", "rows": "hash"}
        marks = (facts.mark(*at, "signature", name, written=written) for name, written in names.items())
        return sentence("{} rows of {} ({})", *marks)

    def all_of(*keys: Key) -> list[Inline]:
        found = [[(*at, *keys, place) for place in _places(facts.get(*at, *keys))] for at in rows.places]
        return [listed([facts.mark(*each) for each in every]) for every in found]

    columns = [
        rows.column("setting", "name", is_text=True),
        rows.column(facts.label(metric, "metric"), "score", figure=metric),
        rows.column("deviation over seeds", "deviation", figure=metric),
        column("seeds", all_of("seeds")),
        rows.column("trivial baseline", "baseline", figure=metric),
        rows.column("time", "seconds", written="duration"),
        rows.column("memory", "peak_memory_mb", written="memory"),
        column("measured on", (measured_on(*at) for at in rows.places), is_text=True),
    ]
    if any(setting["signature"]["how"] for setting in settings):
        columns.append(column("measured by", all_of("signature", "how"), is_text=True))
    caption = "Scores; those on other rows, or by another tokeniser, are not ranked together"
    return Table(caption, columns)


def _places(values: Sequence[Any] | Mapping[str, Any]) -> list[Key]:
    return [*values] if isinstance(values, Mapping) else [*range(len(values))]


def _settings(facts: Source) -> list[Block]:
    """Return only those settings in which the compared ones differ."""
    columns = setting_columns(facts)
    return [Table("Settings in which they differ", columns)] if len(columns) > 1 else []


def _pairs(facts: Source) -> Block:
    rows, unit = Rows.of(facts, "pairs"), Metric("", None, facts.get("pairs", 0, "unit"))
    against = (
        sentence("{} against {}", *(facts.mark(*at, each) for each in ("a", "b"))) for at in rows.places
    )
    columns = [
        column("pair", against, is_text=True),
        rows.column("the first is", "verdict", is_text=True),
        rows.column("better by", "value", change=unit),
        rows.column("interval", change=unit, interval=True),
        rows.column("p by Holm", "p_holm", written="p"),
        *(rows.column(name, name, written="count") for name in ("wins", "ties", "losses")),
        rows.column("rows", "num_rows", written="count"),
    ]
    by = facts.mark("pairs", 0, "metric", written="metric")
    return Table(sentence("The same test rows, scored by {}", by), columns)


def _example(facts: Source, place: int) -> Section:
    """Return a row on which settings differ: what stands in it, and what each makes of it."""
    example, at = facts.get("examples", place), ("examples", place)
    pairs: list[tuple[Inline, Inline]] = [
        (name, facts.mark(*at, "columns", name)) for name in example["columns"]
    ]
    for name, answers in example["predictions"].items():
        shown = [facts.mark(*at, "predictions", name, column) for column in answers]
        pairs.append(
            (
                facts.mark(*at, "scores", name, written="key"),
                sentence("{} (score {})", listed(shown), facts.mark(*at, "scores", name, written="number")),
            )
        )
    return Section(sentence("Row {}", facts.mark(*at, "row")), [Pairs(pairs)])
