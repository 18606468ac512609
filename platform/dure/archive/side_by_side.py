"""One page of several runs and studies: their comparison first, then each with all that its own page has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from dure.archive.comparing import compare
from dure.archive.comparison_table import curves_of, pair_columns, score_columns, setting_columns, table_facts
from dure.archive.left import completed_runs, run_names, settings_of
from dure.errors import UserError
from dure.metrics.metric import Metric
from dure.pages.run_facts import best_metric
from dure.pages.shared_sections import points_of
from dure.reporting.curves import plot_runs
from dure.reporting.marks import Computation, Source, Sources, listed, sentence
from dure.reporting.page import Inline, Page, Pairs, Paragraph, Picture, Section, Table
from dure.reporting.plots import Drawing
from dure.studies.reports import COMPUTATIONS as OF_EACH
from dure.studies.reports import page_at

SIDE_BY_SIDE = "comparison"


def comparison_facts(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what a comparison came to, without the paths that depend on where one asks; or why there is none."""
    titles: list[str | None] = []
    try:
        names = run_names(settings_of(completed_runs(paths)[0]))
        titles += [names.get(path.resolve()) for path in paths]
        compared = table_facts(compare(paths)[0])
    except UserError as error:
        return {"titles": titles, "sentences": [f"They are not compared: {error.problem}."]}
    for setting in compared["settings"]:
        del setting["runs"]
    compared["sentences"] += compared.pop("notes")
    return {"titles": titles, **compared}


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
    if facts.get("titles"):
        sections += _curves(paths, facts)
    titles = [
        facts.mark("titles", place) if facts.get("titles", place) else page.title
        for place, page in enumerate(pages)
    ]
    for title, page in zip(titles, pages, strict=True):
        verdict, *others = page.sections
        parts = [
            part for section in others for part in (Section(section.title, section.blocks), *section.parts)
        ]
        sections.append(Section(title, verdict.blocks, parts))
    lead = sentence("{}", Markup(" · ").join(map(escape, titles)))
    notes = list(dict.fromkeys(note for page in pages for note in page.notes))
    return Page("Runs side by side", lead, sections, sources, notes)


def _curves(paths: Sequence[Path], facts: Source) -> list[Section]:
    """Return the curves of all runs that completed in one picture, named as the tables name them; nothing of one alone."""
    settings = settings_of(completed_runs(paths)[0])
    order = [each["name"] for each in facts.get("settings") or ()] or [each.name for each in settings]
    drawn = [curves for curves in curves_of(settings, order) if curves.records]
    if len(drawn) < 2:
        return []
    drawing = Drawing(f"Curves of {', '.join(dict.fromkeys(each.name for each in drawn))} over the epochs.")
    if compared := facts.get("metric"):
        metric = Metric(f"eval_{compared}", facts.get("direction"), facts.get("unit"))
    else:
        metric = best_metric(settings[0].runs[0].path)
    plot_runs(drawing, drawn, metric, title="")
    return [Section("Curves", [Picture("Every run that completed; dashed: the trivial baseline.", drawing)])]


def _compared(facts: Source) -> list[Section]:
    caption = "Scores; those on other rows, or by another tokeniser, are not ranked together"
    scores = [Table(caption, score_columns(facts))]
    if len(values := setting_columns(facts)) > 1:
        scores.append(Table("Settings in which they differ", values))
    sections = [Section("Scores", scores)]
    if facts.get("pairs"):
        by = sentence("The same test rows, scored by {}", facts.mark("pairs", 0, "metric", written="metric"))
        sections.append(Section("Row by row", [Table(by, pair_columns(facts))]))
    if facts.get("examples"):
        parts = [_example(facts, place) for place in range(len(facts.get("examples")))]
        sections.append(Section("Where they differ most", [Paragraph("Rows are numbered from 0.")], parts))
    return sections


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
