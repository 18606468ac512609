"""One page of several runs and studies: their comparison first, then each with all that its own page has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from dure.archive.comparing import compare
from dure.errors import UserError
from dure.metrics.metric import Metric
from dure.pages.run_facts import best_metric
from dure.pages.shared_sections import points_of, text_head
from dure.reporting.curves import RunCurves, plot_runs
from dure.reporting.inline import Drawing
from dure.reporting.marks import Computation, Source, Sources, listed, sentence
from dure.reporting.page import Block, Head, Inline, Page, Pairs, Picture, Section, Table
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
    rows: list[list[Inline]] = []
    has_how = any(setting["signature"]["how"] for setting in facts.get("settings"))
    for place, setting in enumerate(facts.get("settings")):
        at = ("settings", place)
        rows.append(
            [
                facts.mark(*at, "name"),
                facts.figure(*at, "score", metric=metric),
                facts.figure(*at, "deviation", metric=metric),
                listed([facts.mark(*at, "seeds", number) for number in range(len(setting["seeds"]))]),
                facts.figure(*at, "baseline", metric=metric),
                facts.mark(*at, "seconds", written="duration"),
                facts.mark(*at, "peak_memory_mb", written="memory"),
                sentence(
                    "{} rows of {} ({})",
                    facts.mark(*at, "signature", "num_rows", written="count"),
                    facts.mark(*at, "signature", "split"),
                    facts.mark(*at, "signature", "rows", written="hash"),
                ),
                *(
                    [
                        listed(
                            [facts.mark(*at, "signature", "how", key) for key in setting["signature"]["how"]]
                        )
                    ]
                    if has_how
                    else []
                ),
            ]
        )
    unit = " %" if metric.in_percent else ""
    heads = [text_head("setting"), Head(sentence("{}{}", facts.mark("metric", written="metric"), unit))]
    heads += [Head(name) for name in ("deviation over seeds", "seeds", "trivial baseline", "time", "memory")]
    heads += [text_head("measured on"), *([text_head("measured by")] if has_how else [])]
    return Table("Scores; those on other rows, or by another tokeniser, are not ranked together", heads, rows)


def _settings(facts: Source) -> list[Block]:
    """Return only those settings in which the compared ones differ."""
    settings = facts.get("settings")
    keys = list(dict.fromkeys(key for setting in settings for key in setting["values"]))
    rows: list[list[Inline]] = [
        [
            facts.mark("settings", place, "name"),
            *(facts.mark("settings", place, "values", key, written="setting") for key in keys),
        ]
        for place in range(len(settings))
    ]
    heads = [text_head("setting"), *(Head(key) for key in keys)]
    return [Table("Settings in which they differ", heads, rows)] if keys else []


def _pairs(facts: Source) -> Block:
    rows: list[list[Inline]] = []
    for place, pair in enumerate(facts.get("pairs")):
        at, metric = ("pairs", place), Metric(pair["metric"], None, pair["unit"])
        ends = [facts.change(*at, end, metric=metric) for end in ("low", "high")]
        rows.append(
            [
                sentence("{} against {}", facts.mark(*at, "a"), facts.mark(*at, "b")),
                facts.mark(*at, "verdict"),
                facts.change(*at, "value", metric=metric),
                sentence("{} to {}", *ends),
                facts.mark(*at, "p_holm", written="p"),
                *(facts.mark(*at, count, written="count") for count in ("wins", "ties", "losses")),
                facts.mark(*at, "num_rows", written="count"),
            ]
        )
    heads = [
        text_head("pair"),
        text_head("the first is"),
        Head("better by"),
        Head("interval"),
        Head("p by Holm"),
    ]
    heads += [Head(name) for name in ("wins", "ties", "losses", "rows")]
    return Table(
        sentence("The same test rows, scored by {}", facts.mark("pairs", 0, "metric", written="metric")),
        heads,
        rows,
    )


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
