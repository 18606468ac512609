"""What dure does, as functions: every verb of the command line is one of these."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config import library
from dure.config.families import trusting
from dure.config.loading import load_experiment, load_profile, load_space
from dure.config.rehearsal import with_options
from dure.config.schema import Profile
from dure.errors import UserError
from dure.events import Notify
from dure.outputs import output_folder, outputs, pull
from dure.runtime.experiment import train
from dure.runtime.placement import choose_profile
from dure.studies.plan import StudyPlan
from dure.studies.results import StudyResults
from dure.studies.study import load_study, read_results

if TYPE_CHECKING:
    from dure.archive.cleaning import Cleaning
    from dure.archive.comparison import Comparison
    from dure.archive.listing import Listing
    from dure.reporting.verifying import Verification

__all__ = [
    "READERS",
    "catalogue",
    "choose_profile",
    "clean",
    "compare",
    "list_runs",
    "load_config",
    "load_experiment",
    "load_profile",
    "load_study",
    "output_folder",
    "predict",
    "pull",
    "read_results",
    "report",
    "run",
    "score",
    "train",
    "verify_report",
    "with_options",
]

load_config = load_experiment
READERS: dict[library.Kind, Callable[[str], Any]] = {
    "experiment": load_experiment,
    "study": load_study,
    "space": load_space,
    "profile": load_profile,
}
"""How a YAML file of each kind is read, by its name or path."""


def run(
    study: str | StudyPlan,
    overrides: Sequence[str] = (),
    *,
    profile: str | None = None,
    address: str | None = None,
    output: Path | None = None,
    resume: bool = False,
    rehearse: bool = False,
    one_epoch: bool = False,
    samples: int | None = None,
) -> StudyResults:
    """Run a study of any kind, as ``dure run`` does, and return its record.

    Args:
        study: A study, or its name or file.
        overrides: ``a.b=value`` texts, laid over its experiments after its own.
        profile: Machine profile by name or file; recognised when not given.
        address: Ray cluster to join.
        output: Folder of the study.
        resume: Continue in ``output``, or in the newest folder of the study's name.
        rehearse: A miniature model on few rows for few steps.
        one_epoch: One pass over the data.
        samples: Use at most so many training rows, and validation rows.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Ray does not start, or a step failed.
    """
    from dure.reporting.console import terminal
    from dure.studies import life_cycle

    plan = load_study(study) if isinstance(study, str) else study
    with terminal() as screen:
        asked = life_cycle.Asked(
            profile=profile,
            address=address,
            output=output,
            resume=resume,
            rehearse=rehearse,
            one_epoch=one_epoch,
            samples=samples,
            notify=screen.say,
        )
        return life_cycle.run(plan.with_overrides(overrides), asked, screen=screen)


def predict(
    run: Path,
    source: str | Path,
    output: Path,
    *,
    overrides: Sequence[str] = (),
    force: bool = False,
    fold: int | None = None,
    profile: Profile,
    progress: Callable[[int, int], None],
    notify: Notify,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Predict a table with the final model of a run, or with all folds of a cross-validation.

    Args:
        run: Folder of a run or of an experiment's cross-validation.
        source: Table to predict.
        output: File to write: .csv, .tsv, .jsonl or .xlsx.
        overrides: ``data.key=value`` texts of how the table is read.
        force: Whether a file that is there is replaced.
        fold: Take the model of this fold only.
        profile: The machine.
        progress: Gets rows done and rows in all.
        notify: Gets one-line messages.
        trust_code: Import the family that the run's folder names also when it did not come with dure.

    Raises:
        UserError: See ``dure.family.predicting``; or there is no such fold.
    """
    from dure.family.predicting import predict_file
    from dure.studies.crossval.driver import fold_runs

    with trusting(trust_code):
        return predict_file(
            fold_runs(run, fold),
            str(source),
            output,
            overrides=overrides,
            force=force,
            profile=profile,
            progress=progress,
            notify=notify,
        )


def score(
    predictions: Path,
    references: Path,
    *,
    id_column: str = "fname",
    prediction_column: str = "summary",
    reference_columns: Sequence[str] = ("summary",),
    tokenizer: Any = "morpheme",
    special_tokens: Sequence[str] = (),
    task: Any = "generation",
    multi_reference: Any = "best",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a table of predictions against a table of references; see ``dure.metrics.scoring``.

    ``overrides`` are ``data.key=value`` texts of how both tables are read.
    """
    from dure.config.loading import reading_of
    from dure.family.corpus import cache_folder
    from dure.metrics.scoring import score_files

    return score_files(
        predictions,
        references,
        id_column=id_column,
        prediction_column=prediction_column,
        reference_columns=reference_columns,
        tokenizer=tokenizer,
        special_tokens=special_tokens,
        task=task,
        multi_reference=multi_reference,
        reading=reading_of(overrides),
        cache_folder=cache_folder(),
    )


def report(
    paths: str | Path | Sequence[str | Path], output: str | Path | None = None, *, force: bool = False
) -> Path:
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

    folders = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not folders:
        raise UserError("no folder is given", where="report", expected="folders of runs or studies")
    is_alone = len(folders) == 1
    file = Path(output) if output is not None else (folders[0] if is_alone else Path()) / REPORT
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

    return verify(Path(path), COMPUTATIONS, root=None if root is None else Path(root))


def compare(
    *runs: str | Path, metric: str | None = None, output: str | Path | None = None, force: bool = False
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

    comparison, settings = compared(runs, metric=metric)
    if output is not None:
        from dure.archive.written import write_comparison

        write_comparison(comparison, settings, Path(output), force=force)
    return comparison


def list_runs(*folders: str | Path, state: str | None = None, sort: str = "date") -> Listing:
    """List the runs and studies in folders, as ``dure runs`` does; see :mod:`dure.archive.listing`.

    Args:
        folders: Where to look; the outputs when none is given. Of a study its runs are listed.
        state: Only those in this state.
        sort: ``date``, ``name``, ``state``, ``score``, ``seconds`` or ``size``.

    Raises:
        UserError: A folder is not there, or there is no such state or order.
    """
    from dure.archive.listing import listing

    return listing([Path(folder) for folder in folders] or [outputs()], state=state, sort=sort)


def clean(*folders: str | Path, remove: bool = False) -> Cleaning:
    """Find what may go from outputs and cache, as ``dure clean`` does, and remove it if that is wanted.

    Args:
        folders: Where runs and studies lie; the outputs when none is given.
        remove: Whether it goes.

    Raises:
        UserError: A folder is not there, or somebody began to work in one.
    """
    from dure.archive.cleaning import clean as cleaned
    from dure.family.corpus import cache_folder

    return cleaned([Path(folder) for folder in folders] or [outputs()], cache_folder(), remove=remove)


def catalogue() -> dict[str, dict[str, str]]:
    """Return what there is: experiments, studies, search spaces and profiles by name, each with a sentence."""
    found = {
        kind: {name: read(str(file)) for name, file in library.available(kind).items()}
        for kind, read in READERS.items()
    }
    return {
        "experiments": {name: each.experiment.description for name, each in found["experiment"].items()},
        "studies": {name: f"{each.words}: {each.description}" for name, each in found["study"].items()},
        "spaces": {name: each.description for name, each in found["space"].items()},
        "profiles": {name: each.description for name, each in found["profile"].items()},
    }
