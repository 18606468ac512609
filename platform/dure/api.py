"""What dure does beside training, as functions: every verb of the command line is one of these, or of :mod:`dure.running`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config import library
from dure.config.families import trusting
from dure.config.given import Names, Overrides, name_of, names_of, overrides_of, path_of
from dure.config.loading import load_experiment, load_profile, load_space, reading_of
from dure.config.rehearsal import with_options
from dure.config.schema import Profile
from dure.errors import UserError, said
from dure.events import Notify
from dure.outputs import outputs
from dure.runtime.placement import choose_profile
from dure.studies.study import load_study

if TYPE_CHECKING:
    from dure.archive.cleaning import Cleaning
    from dure.archive.comparison import Comparison
    from dure.archive.listing import Listing
    from dure.reporting.verifying import Verification

logger = logging.getLogger(__name__)
load_config = load_experiment
READERS: dict[library.Kind, Callable[[str], Any]] = {
    "experiment": load_experiment,
    "study": load_study,
    "space": load_space,
    "profile": load_profile,
}
"""How a YAML file of each kind is read, by its name or path."""


def predict(
    run: str | Path,
    source: str | Path | Sequence[str | Mapping[str, str]],
    output: str | Path | None = None,
    *,
    overrides: Overrides = (),
    force: bool = False,
    resume: bool = False,
    fold: int | None = None,
    profile: str | Profile | None = None,
    workers: int | None = None,
    address: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notify: Notify = logger.info,
    trust_code: bool = False,
) -> Any:
    """Predict texts, or a table, with the final model of a run or with all folds of a cross-validation.

    Args:
        run: Folder of a run, of an experiment's cross-validation, or of an export.
        source: Texts, ``["문장", …]``, or mappings from role to text; or the table to predict.
        output: File to write: .csv, .tsv, .jsonl, .parquet or .xlsx; only for a table, which needs one.
        overrides: ``data.key=value`` texts of how the table is read.
        force: Whether a file that is there is replaced.
        resume: Whether to go on with what a command that was killed has predicted for ``output``.
        fold: Take the model of this fold only.
        profile: The machine, by name or file; recognised when not given.
        workers: Predict a table with so many processes of a Ray cluster; the file is the same.
        address: That cluster; an own one on this machine when not given.
        progress: Gets rows done and rows in all.
        notify: Gets one-line messages.
        trust_code: Import the family that the run's folder names also when it did not come with dure.

    Returns:
        For texts a dictionary by column of each; for a table ``rows``, ``skipped``, ``output`` and ``models``.

    Raises:
        UserError: See ``dure.family.predicting_tables``; or there is no such fold.
    """
    from dure.family.predicting import predict_texts
    from dure.runtime import predicting
    from dure.studies.crossval.driver import fold_runs

    with trusting(trust_code):
        runs = fold_runs(Path(name_of(run)), fold)
        heard: Any = {"progress": progress, "notify": notify}
        if not isinstance(source, str | Path):
            return predict_texts(runs, source, profile=choose_profile(profile, notify), **heard)
        heard |= {"force": force, "resume": resume, "overrides": overrides_of(overrides)}
        heard["where"] = predicting.Where(profile, workers, address, trust_code)
        return predicting.predict_table(runs, str(source), path_of(output), **heard)


def evaluate(
    run: str | Path,
    table: str | Path,
    *,
    overrides: Overrides = (),
    fold: int | None = None,
    profile: str | Profile | None = None,
    notify: Notify = logger.info,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Score the final model of a run on a table with targets; see ``dure.training.evaluating``.

    Args:
        run: Folder of a run; of a cross-validation with ``fold``.
        table: The table.
        overrides: ``data.key=value`` texts of how it is read, over what the run was trained with.
        fold: Take the model of this fold.
        profile: The machine, by name or file; recognised when not given.
        notify: Gets one-line messages.
        trust_code: Import the family that the run's folder names also when it did not come with dure.

    Returns:
        ``metrics`` by name, and what they are of: ``run``, ``model``, ``table``, ``rows``, ``data`` (hash of the rows),
        ``notes`` (such as the tokeniser of ROUGE).

    Raises:
        UserError: The folder holds no finished run, or the table is not what the family needs.
    """
    from dure.studies.crossval.driver import fold_runs
    from dure.training.evaluating import evaluate_table

    with trusting(trust_code):
        runs = fold_runs(Path(name_of(run)), fold)
        if len(runs) > 1:
            raise UserError(
                f"this is a cross-validation of {len(runs)} folds, each with a model of its own",
                where=str(run),
                hint="--fold 1 evaluates that of one fold",
            )
        heard: Any = {"profile": choose_profile(profile, notify), "notify": notify}
        return evaluate_table(runs[0], name_of(table), overrides=overrides_of(overrides), **heard)


def forecast(
    what: str,
    overrides: Overrides = (),
    *,
    profile: str | None = None,
    rehearse: bool = False,
    samples: int | None = None,
    measure: int | None = None,
    notify: Notify = logger.info,
) -> dict[str, Any]:
    """Forecast what an experiment or a study takes; see ``dure.studies.forecasting``.

    Args:
        what: Experiment or study, by name or file.
        overrides: ``a.b=value`` texts.
        profile: Machine profile by name or file; recognised when not given.
        rehearse: Of the miniature.
        samples: Use at most so many training rows, and validation rows.
        measure: Real steps that are trained first.
        notify: Gets one-line messages.

    Raises:
        UserError: Something that was given is wrong.
    """
    from functools import partial

    from dure.studies.forecasting import forecast_experiments

    return forecast_experiments(
        what,
        overrides_of(overrides),
        # That of another machine can be forecast too.
        machine=choose_profile(None, notify) if profile is None else load_profile(profile),
        shape=partial(with_options, rehearse=rehearse, one_epoch=False, samples=samples),
        measure=measure,
        notify=notify,
    )


def score(
    predictions: str | Path, references: str | Path, *, overrides: Overrides = (), **options: Any
) -> dict[str, Any]:
    """Score a table of predictions against a table of references, as ``dure score`` does.

    Args:
        predictions: Table of predictions.
        references: Table of what is true.
        overrides: ``data.key=value`` texts of how both tables are read.
        options: What :func:`dure.metrics.scoring.score_files` takes: columns, tokenizer, task, metrics.
    """
    from dure.family.corpus import cache_folder
    from dure.metrics.scoring import score_files

    return score_files(
        Path(name_of(predictions)),
        Path(name_of(references)),
        reading=reading_of(overrides_of(overrides)),
        cache_folder=cache_folder(),
        **options,
    )


def report(paths: Names, output: str | Path | None = None, *, force: bool = False) -> Path:
    """Write what runs and studies came to as one self-contained page, and return its file.

    Args:
        paths: Folders of runs or studies.
        output: File to write; ``report.html`` in the folder, or in the working folder for several.
        force: Whether a file that is there is replaced, if no earlier page of dure.

    Raises:
        UserError: A folder holds neither a run nor a study, a record is broken, or the file is somebody else's.
    """
    from dure.archive.side_by_side import COMPUTATIONS, side_by_side
    from dure.files import write_text
    from dure.reporting.marks import Sources
    from dure.reporting.page import REPORT
    from dure.reporting.verifying import require_replaceable
    from dure.studies.reports import page_at

    folders = [Path(path) for path in names_of(paths)]
    if not folders:
        raise UserError("no folder is given", where="report", expected="folders of runs or studies")
    is_alone = len(folders) == 1
    file = path_of(output) or (folders[0] if is_alone else Path()) / REPORT
    require_replaceable(file, force=force)
    base = folders[0] if is_alone else Path(os.path.commonpath([each.resolve() for each in folders]))
    sources = Sources(base, COMPUTATIONS)
    page = page_at(folders[0], sources) if is_alone else side_by_side(folders, sources)
    write_text(file, page.html(file.parent))
    return file


def verify_report(path: str | Path, *, root: str | Path | None = None) -> Verification:
    """Recompute every number of a page from the records that it names.

    Args:
        path: The page.
        root: Where its runs lie by now, in place of where they lay when it was written.

    Raises:
        UserError: It is no page of dure, or a record that it names is not there.
    """
    from dure.archive.side_by_side import COMPUTATIONS
    from dure.reporting.verifying import verify

    return verify(Path(name_of(path)), COMPUTATIONS, root=path_of(root))


def compare(
    *runs: Names, metric: str | None = None, output: str | Path | None = None, force: bool = False
) -> Comparison:
    """Compare runs and studies, as ``dure compare`` does; see :mod:`dure.archive.comparing`.

    Args:
        runs: Folders of runs and studies, or patterns of such.
        metric: What they are compared by; what chose the best checkpoints when not given.
        output: Folder to write ``comparison.json``, ``.txt`` and ``.png`` into.
        force: Whether such files that are there are replaced.

    Raises:
        UserError: There are no two settings to compare, the metric is not known, or a file would be lost.
    """
    from dure.archive.comparing import compare as compared

    comparison, settings = compared(names_of(*runs), metric=metric)
    if output is not None:
        from dure.archive.comparison_table import write_comparison

        write_comparison(comparison, settings, Path(name_of(output)), force=force)
    return comparison


def list_runs(*folders: Names, state: str | None = None, sort: str = "date") -> Listing:
    """List the runs and studies in folders, as ``dure runs`` does; see :mod:`dure.archive.listing`.

    Args:
        folders: Where to look; the outputs when none is given. Of a study its runs are listed.
        state: Only those in this state.
        sort: ``date``, ``name``, ``state``, ``score``, ``seconds`` or ``size``.

    Raises:
        UserError: A folder is not there, or there is no such state or order.
    """
    from dure.archive.listing import listing

    return listing(_given_or_outputs(folders), state=state, sort=sort)


def clean(*folders: Names, remove: bool = False) -> Cleaning:
    """Find what may go from outputs and cache, as ``dure clean`` does, and remove it if that is wanted.

    Args:
        folders: Where runs and studies lie; the outputs when none is given.
        remove: Whether it goes.

    Raises:
        UserError: A folder is not there.
    """
    from dure.archive.cleaning import clean as cleaned
    from dure.family.corpus import cache_folder

    return cleaned(_given_or_outputs(folders), cache_folder(), remove=remove)


def _given_or_outputs(folders: Sequence[Names]) -> list[Path]:
    """Return the folders that were given; else the outputs, which are not there before something ran."""
    return [Path(folder) for folder in names_of(*folders)] or [path for path in (outputs(),) if path.is_dir()]


def validate(
    experiment: str | Path | None = None,
    overrides: Overrides = (),
    *,
    profile: str | None = None,
    checkpoint: str | Path | None = None,
    output: str | Path | None = None,
    rehearse: bool = False,
    trust_code: bool = False,
    notify: Notify = logger.info,
) -> dict[str, Any]:
    """Check environment, configuration, rows and checkpoints, as ``dure validate`` does; nothing is trained.

    Args:
        experiment: Name or file; only the environment is checked when neither it nor a checkpoint is given.
        overrides: ``a.b=value`` texts for it.
        profile: Machine profile by name or file; recognised when not given.
        checkpoint: Folder of a run, a checkpoint or a model, or a file of weights.
        output: Folder that a run would write to.
        rehearse: Check the rehearsal of the experiment.
        trust_code: Import the family that the folder of ``checkpoint`` names also when it did not come with dure.
        notify: Gets a line on what is looked at.

    Returns:
        ``num_ok``, ``num_failed``, ``num_skipped`` and ``checks``; a mistake is a failed check, and raises nothing.
    """
    from dure.preflight import validating

    checks = validating.validate(
        None if experiment is None else name_of(experiment),
        overrides_of(overrides),
        profile=profile,
        checkpoint=path_of(checkpoint),
        output=path_of(output),
        rehearse=rehearse,
        trust_code=trust_code,
        readers=READERS,
        notify=notify,
    )
    return validating.as_record(checks)


def catalogue() -> dict[str, dict[str, str]]:
    """Return what there is: experiments, studies, search spaces and profiles by name, each with a sentence.

    Of a file that cannot be read, the sentence says why.
    """
    sentences: dict[str, tuple[library.Kind, Callable[[Any], str]]] = {
        "experiments": ("experiment", lambda each: each.experiment.description),
        "studies": ("study", lambda each: f"{each.words}: {each.description}"),
        "spaces": ("space", lambda each: each.description),
        "profiles": ("profile", lambda each: each.description),
    }

    def told(kind: library.Kind, file: Path, sentence: Callable[[Any], str]) -> str:
        try:
            return sentence(READERS[kind](str(file)))
        except UserError as error:
            return f"cannot be read: {said(error)}"

    return {
        heading: {name: told(kind, file, sentence) for name, file in library.available(kind).items()}
        for heading, (kind, sentence) in sentences.items()
    }
