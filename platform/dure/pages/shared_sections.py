"""The parts that the pages of runs and of studies have in common: what went wrong, examples, machine, lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dure.reporting.columns import Rows, column
from dure.reporting.forecasts import beside_columns
from dure.reporting.marks import LONGEST_TEXT, Key, Source, Sources, listed, sentence
from dure.reporting.page import Block, Folded, Inline, Pairs, Paragraph, Points, Section, Table
from dure.runs.folder import PREDICTED, PROBABILITY, ROW, SCORE, RunFolder

_FOLD_FROM = 160
"""Letters from which a text is folded."""
_MOST_ROWS_OPEN = 12
_MOST_NAMES = 6


@dataclass(frozen=True)
class Runs:
    """Runs of a page, with the records that say all of them.

    ``facts`` are as :func:`dure.pages.run_facts.facts_of_runs` makes them.
    """

    folders: Mapping[str, Path]
    facts: Source
    sources: Sources

    @property
    def first(self) -> str:
        """The name of the run that stands for all where they are alike."""
        return next(iter(self.folders))

    def experiment(self, name: str) -> Source:
        """Return the resolved experiment of a run."""
        return self.sources.file(RunFolder(self.folders[name]).experiment)

    def environment(self, name: str) -> Source:
        """Return what a run ran on."""
        return self.sources.file(RunFolder(self.folders[name]).environment)

    def result(self, name: str) -> Source:
        """Return how a run ended."""
        return self.sources.file(RunFolder(self.folders[name]).result)


def foldable(table: Table) -> Block:
    """Return a table, folded when it is long."""
    if len(table.rows) <= _MOST_ROWS_OPEN:
        return table
    return Folded(sentence("{}", table.caption), [table])


def points_of(facts: Source, *keys: Key) -> Points:
    """Return a list of sentences that stand in the facts of a page."""
    return Points([facts.mark(*keys, place) for place in range(len(facts.get(*keys) or ()))])


def examples_section(runs: Runs) -> Section | None:
    """Return some rows with what was predicted of them; None where no predictions were kept."""
    chosen = runs.facts.get("examples")
    if not chosen or not chosen["rows"]:
        return None
    table = runs.sources.file(RunFolder(runs.folders[chosen["run"]]).predictions)
    names = [name for name in chosen["columns"] if name != ROW and not name.startswith((PROBABILITY, SCORE))]
    parts = [_example(table, row, names, chosen["hit"]) for row in chosen["rows"]]
    return Section("Examples", [Paragraph(runs.facts.mark("examples", "told"))], parts)


def _example(table: Source, row: int, names: Sequence[str], hit: str | None) -> Section:
    """Return one row, its long texts folded beneath their beginning; the score ``hit`` is 1 where it is right."""
    verdict = "" if hit is None else ": right" if float(table.get(row, hit)) == 1 else ": wrong"
    pairs: list[tuple[Inline, Inline]] = [
        (name.replace(PREDICTED, "predicted ", 1), _text(table, row, name)) for name in names
    ]
    return Section(sentence("Row {}{}", table.mark(row, ROW), verdict), [Pairs(pairs)])


def _text(table: Source, row: int, name: str) -> Inline:
    text = str(table.get(row, name) or "")
    shown = sentence("{}", table.mark(row, name))
    if len(text) < _FOLD_FROM:
        return Markup('<span class="pre">{}</span>').format(shown)
    cut = f" (the first {LONGEST_TEXT:,} letters)" if len(text) > LONGEST_TEXT else ""
    return Markup('<details><summary>{}…{}</summary><div class="pre">{}</div></details>').format(
        table.mark(row, name, written="beginning"), cut, shown
    )


def forecast_section(runs: Runs) -> Section | None:
    """Return what was forecast of every run beside what came; None where nothing was forecast of any."""
    named = [name for name in runs.folders if runs.result(name).get("forecast") is not None]
    if not named:
        return None
    columns = beside_columns([_name(runs, name) for name in named], [runs.result(name) for name in named])
    caption = "What was forecast at the start, at the least and at the most, and what came"
    return Section("Forecast", [foldable(Table(caption, columns))])


def trouble_section(runs: Runs, trials: Sequence[tuple[Source, tuple[Key, ...]]]) -> Section:
    """Return which runs failed and why, how often a process died, and what was reported on the way.

    Records say ``name``, ``state`` and ``error`` of each trial.
    """
    blocks: list[Block] = []
    ended = [(record, at) for record, at in trials if record.get(*at, "error")]
    if ended:
        columns = [
            column(heading, (record.mark(*at, key) for record, at in ended), is_text=True)
            for heading, key in (("run", "name"), ("state", "state"), ("why", "error"))
        ]
        blocks.append(Table("What ended before its time", columns))
    restarts = Rows.of(runs.facts, "restarts")
    if restarts.places:
        columns = [
            restarts.column("run", "run", is_text=True),
            restarts.column("when (UTC)", "at", written="date", is_text=True),
            restarts.column("why", "reason", is_text=True),
        ]
        blocks.append(Table("Processes that died and went on", columns))
    if not blocks:
        blocks.append(Paragraph("No run failed, and no process died."))
    notices = runs.facts.get("notices") or []
    if notices:
        said = [
            sentence(
                "{}: {}",
                runs.facts.mark("notices", place, "at", written="date"),
                runs.facts.mark("notices", place, "message"),
            )
            for place in range(len(notices))
        ]
        if runs.facts.get("num_more_notices"):
            said.append(
                sentence(
                    "{} more lines are in events.jsonl", runs.facts.mark("num_more_notices", written="count")
                )
            )
        blocks.append(Folded("What was said on the way (UTC)", [Points(said)]))
    return Section("Failures and restarts", blocks)


def machine_section(runs: Runs) -> Section:
    """Return on what the runs ran: machine, versions, source; once for all that ran on the same."""
    groups = runs.facts.get("machines") or []
    if not groups:
        return Section("Machine and versions", [Paragraph("No run came so far that it would be known.")])
    blocks: list[Block] = []
    for place, names in enumerate(groups):
        if len(groups) > 1:
            blocks.append(Paragraph(sentence("{}:", _names(runs.facts, "machines", place))))
        blocks += _machine(runs.environment(names[0]))
    return Section("Machine and versions", blocks)


def _machine(environment: Source) -> list[Block]:
    git = environment.get("git")
    source: Inline = "not in a repository"
    if git:
        state = "as committed" if git.get("clean") else "with changes that were not committed"
        source = sentence("commit {}, {}", environment.mark("git", "commit", written="hash"), state)
    pairs: list[tuple[Inline, Inline]] = [
        ("device", environment.mark("device")),
        ("profile", environment.mark("profile", "name")),
        ("processes that train together", environment.mark("num_workers")),
        ("CPU cores", environment.mark("cpu_count")),
        ("memory", environment.mark("memory_mb", written="memory")),
        ("system", environment.mark("platform")),
        ("Python", environment.mark("python")),
        ("source", source),
    ]
    packages = environment.get("packages") or {}
    versions = (environment.mark("packages", name) for name in packages)
    columns = [column("package", packages, is_text=True), column("version", versions, is_text=True)]
    return [
        Pairs(pairs),
        Folded("Versions of packages", [Table("Packages", columns)]),
    ]


def lineage_section(runs: Runs, command: Block) -> Section:
    """Return the way from the data to every number, and what makes them anew."""
    names = [*runs.folders]
    if not names:
        return Section("Lineage", [command])
    return Section(
        "Lineage",
        [
            Points(
                [
                    *_data(runs),
                    _split(runs),
                    _start(runs),
                    _weights(runs),
                    "Numbers: every one on this page names its record; these are the records with their hashes.",
                ],
                ordered=True,
            ),
            _trail(runs),
            Paragraph("What repeats it, typed in the folder that it was started in:"),
            command,
        ],
    )


def _data(runs: Runs) -> list[Inline]:
    told: list[Inline] = []
    groups = runs.facts.get("data") or []
    for place, names in enumerate(groups):
        environment, experiment = runs.environment(names[0]), runs.experiment(names[0])
        of = "" if len(groups) < 2 else sentence(" of {}", _names(runs.facts, "data", place))
        hashes = [
            sentence(
                "{} {} (rows {})",
                split,
                _source(experiment, split),
                environment.mark("data", split, written="hash"),
            )
            for split in environment.get("data")
        ]
        told.append(sentence("Data{}: {}.", of, listed(hashes)))
    return told or ["Data: no run came so far that its rows were known."]


def _source(experiment: Source, split: str) -> Inline:
    source = experiment.get("data", split)
    if isinstance(source, list):
        return listed([experiment.mark("data", split, place) for place in range(len(source))])
    return "" if source is None else experiment.mark("data", split)


def _split(runs: Runs) -> Inline:
    experiment, result = runs.experiment(runs.first), runs.result(runs.first)
    counts = ("num_train_rows", "num_rows_in_all", "num_dev_rows")
    marks = (result.mark("metrics", name, written="count") for name in counts)
    rows = sentence("{} of {} training rows and {} validation rows", *marks)
    if experiment.get("data", "fold"):
        fold = [experiment.mark("data", "fold", key) for key in ("number", "of", "seed")]
        return sentence("Split: fold {} of {}, cut by seed {}; {}{}.", *fold, rows, _of_first(runs))
    overlap = experiment.mark("data", "on_overlap")
    return sentence("Split: {}{}; data.on_overlap: {}.", rows, _of_first(runs), overlap)


def _of_first(runs: Runs) -> Inline:
    return "" if len(runs.folders) < 2 else sentence(" of {}", _name(runs, runs.first))


def _start(runs: Runs) -> Inline:
    experiment = runs.experiment(runs.first)
    weights: Inline = experiment.mark("model", "checkpoint")
    if experiment.get("rehearsal", "enabled"):
        weights = sentence("random weights of a miniature of {}", weights)
    seeds = [runs.environment(names[0]).mark("seed") for names in runs.facts.get("seeds") or []]
    return sentence("Start: {}{}, seed {}.", weights, _of_first(runs), listed(seeds) or "not known")


def _weights(runs: Runs) -> Inline:
    name, result = runs.first, runs.result(runs.first)
    return sentence(
        "Weights{}: {}, the best of {} steps by {}; final model{}.",
        _of_first(runs),
        result.mark("best_checkpoint"),
        result.mark("metrics", "steps", written="count"),
        runs.experiment(name).mark("training", "best_metric", written="metric"),
        ""
        if runs.facts.get("hashes", name, "final_model") is None
        else sentence(" with manifest {}", runs.facts.mark("hashes", name, "final_model", written="hash")),
    )


def _trail(runs: Runs) -> Block:
    """Return the records of every run with their hashes, from which all numbers are."""
    hashes: Mapping[str, Mapping[str, str]] = runs.facts.get("hashes") or {}
    files = list(dict.fromkeys(file for each in hashes.values() for file in each))
    columns = [column("run", (_name(runs, name) for name in hashes), is_text=True)]
    for file in files:
        marks = (runs.facts.mark("hashes", name, file, written="hash") for name in hashes)
        columns.append(column(file, marks))
    return foldable(Table("Records of every run (XXH3)", columns))


def _name(runs: Runs, name: str) -> Inline:
    """Return the name of a run as a mark: its key among the facts."""
    return runs.facts.mark("runs", name, written="key")


def _names(facts: Source, *keys: Key) -> Inline:
    names: Any = facts.get(*keys)
    shown = [facts.mark(*keys, place) for place in range(min(len(names), _MOST_NAMES))]
    more = len(names) - len(shown)
    return listed(shown) if not more else sentence("{} and others", Markup(", ").join(shown))
