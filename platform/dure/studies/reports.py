"""The page of a study of any kind, made of its folder alone; what differs by kind is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dure.errors import UserError, shell_word
from dure.files import write_text
from dure.metrics.metric import Metric, recorded, undeclared
from dure.pages.run_facts import best_metric, facts_of_runs
from dure.pages.run_page import COMPUTATIONS as OF_RUNS
from dure.pages.run_page import curves_section, page_around, page_of_run
from dure.pages.shared_sections import Runs
from dure.reporting.curves import CURVES, RunCurves, plot_runs
from dure.reporting.marks import Computation, Source, Sources, sentence
from dure.reporting.page import REPORT, Page, Picture, Section
from dure.reporting.plots import Drawing
from dure.reporting.targets import target_sentence
from dure.runs.folder import RUN_RECORD, STUDY_FILE, RunFolder
from dure.studies.results import StudyResults
from dure.studies.study import options_line, read_results, stored_kind
from dure.studies.viewing import View

STUDY = "study"


def study_facts(path: Path) -> dict[str, Any]:
    """Return what the page of a study is made of, beside its records.

    Raises:
        UserError: It holds no study, or a record is broken.
    """
    plan, results = stored_kind(path), read_results(path)
    view = plan.kind_of().view
    runs, facts = dict(view.run_folders(results, path)), view.facts_of(results, path)
    return {
        "title": results.study,
        "words": plan.words,
        **facts_of_runs(path, runs),
        **facts,
        "sentences": [*facts["sentences"], *map(target_sentence, results.targets)],
        "command": _command(results, runs, path),
    }


COMPUTATIONS: Mapping[str, Computation] = {
    **OF_RUNS,
    STUDY: lambda folders: study_facts(folders[0]),
}
"""What the pages of runs and studies compute."""


def _view_of(path: Path, sources: Sources) -> View[Any]:
    kind, results = stored_kind(path).kind_of(), read_results(path)
    record, facts = sources.file(path / kind.results_file), sources.computed(STUDY, path)
    runs = Runs(dict(kind.view.run_folders(results, path)), facts, sources)
    return kind.view(path, results, record, facts, runs)


def _page_of(view: View[Any], curves: Sequence[RunCurves]) -> Page:
    return page_around(
        [*view.sections(), _curves(view, curves)],
        view.runs,
        title=view.record.mark("study"),
        lead=_lead(view.facts, view.record),
        ended=_trials(view),
    )


def page_at(path: Path, sources: Sources) -> Page:
    """Return the page of whatever a folder holds, with records that others may share.

    Raises:
        UserError: It holds neither a study nor a run, or a record is broken.
    """
    if (path / STUDY_FILE).is_file():
        view = _view_of(path, sources)
        return _page_of(view, _drawn(view))
    if (path / RUN_RECORD).is_file():
        return page_of_run(path, sources)
    raise UserError(
        "there is no run and no study",
        where=str(path),
        expected=f"a folder with {STUDY_FILE} or {RUN_RECORD}, as dure leaves one",
        hint="dure runs shows where they lie",
    )


def leave_study_report(path: Path) -> None:
    """Write the curves of a study's runs and its page into its folder.

    Raises:
        UserError: A record of it is broken.
        OSError: They cannot be written.
    """
    view = _view_of(path, Sources(path, COMPUTATIONS))
    curves = _drawn(view)
    # The curves of a study whose folder is that of a run are the run's own.
    if curves and path.resolve() not in [folder.resolve() for folder in view.runs.folders.values()]:
        plot_runs(path / CURVES, curves, _metric(view), title=view.results.study)
    write_text(path / REPORT, _page_of(view, curves).html(path))


def _lead(facts: Source, record: Source) -> Markup:
    lead = sentence("{} · {}", facts.mark("words"), record.mark("state"))
    if record.get("started") is not None:
        lead += sentence(
            " · begun {} (UTC) · {}",
            record.mark("started", written="date"),
            record.mark("seconds", written="duration"),
        )
    return lead


def _curves(view: View[StudyResults], curves: Sequence[RunCurves]) -> Section | None:
    if not curves:
        return None
    if len(curves) == 1:
        return curves_section(curves[0], best_metric(next(iter(view.runs.folders.values()))))
    metric = _metric(view)
    drawing = Drawing(
        f"Curves of {len(curves)} runs: losses, {metric.name} and learning rate over the epochs."
    )
    plot_runs(drawing, curves, metric, title=view.results.study)
    caption = "Losses, score and learning rate of every run over the epochs; dashed: the trivial baseline."
    return Section("Curves", [Picture(caption, drawing)])


def _trials(view: View[StudyResults]) -> list[tuple[Source, tuple[str | int, ...]]]:
    """Return where the record of a study says how each of its trials ended."""
    if view.record.get("result") is not None:
        return [(view.record, ("result",))]
    return [
        (view.record, (view.results.trials_key, place)) for place in range(len(view.results.trial_records))
    ]


def _drawn(view: View[StudyResults]) -> list[RunCurves]:
    read = [RunCurves.of(path, name) for name, path in view.runs.folders.items()]
    return [each for each in read if each.records]


def _metric(view: View[StudyResults]) -> Metric:
    name, defined = str(view.facts.get("metric") or "eval_loss"), view.record.get("definitions") or {}
    found = defined.get(name) or defined.get(name.removeprefix("eval_"))
    return undeclared(name) if found is None else recorded({"definitions": {name: found}}, name)


def _command(results: StudyResults, runs: Mapping[str, Path], path: Path) -> str:
    """Return what runs the same study again, from the folder that it was started in."""
    words = [f"dure run {shell_word(Path(results.path) / STUDY_FILE)}"]
    if options := options_line(path):
        words.append(options)
    first = next(iter(runs.values()), path)
    profile = RunFolder(first).read_environment().get("profile", {}).get("name")
    return " ".join([*words, *([f"--profile {profile}"] if profile else [])])
