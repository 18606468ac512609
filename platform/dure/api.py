"""What dure does, as functions: every verb of the command line is one of these."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config import library
from dure.config.loading import dump_yaml, load_experiment, load_profile, load_space, load_study
from dure.config.rehearsal import rehearsal_of
from dure.config.schema import Experiment, Profile
from dure.config.studies import BatchStudy
from dure.errors import UserError
from dure.files import write_text
from dure.outputs import bring, output_folder
from dure.runs.folder import STUDY_FILE
from dure.storage.pushing import kept_in_storage

if TYPE_CHECKING:
    from dure.events import RunListener, StudyListener
    from dure.runs.folder import RunFolder, RunResult

logger = logging.getLogger(__name__)


__all__ = [
    "batch",
    "bring",
    "catalogue",
    "check",
    "check_rows",
    "check_some_rows",
    "choose_profile",
    "load_config",
    "load_experiment",
    "load_profile",
    "load_study",
    "output_folder",
    "predict",
    "score",
    "shaped",
    "study_experiments",
    "train",
]

load_config = load_experiment
Tell = Callable[[str], None]


def shaped(
    experiment: Experiment, *, rehearse: bool = False, one_epoch: bool = False, samples: int | None = None
) -> Experiment:
    """Return the experiment as the common options shape it.

    Args:
        experiment: As its YAML and the overrides say it.
        rehearse: A miniature model on few rows for few steps.
        one_epoch: One pass over the data.
        samples: Use at most so many training rows, and validation rows.

    Raises:
        UserError: ``samples`` is not positive.
    """
    if samples is not None and samples < 1:
        raise UserError(f"{samples} rows are none", where="--samples", expected="a number from 1")
    if one_epoch:
        experiment = experiment.model_copy(
            update={"training": experiment.training.model_copy(update={"epochs": 1})}
        )
    if samples is not None:
        data = experiment.data
        limits = {
            "max_train_rows": min(samples, data.max_train_rows or samples),
            "max_dev_rows": min(samples, data.max_dev_rows or samples),
        }
        experiment = experiment.model_copy(update={"data": data.model_copy(update=limits)})
    return rehearsal_of(experiment) if rehearse else experiment


def choose_profile(name: str | None, tell: Tell, *, address: str | None = None) -> Profile:
    """Return the profile of a name, or recognise the machine and tell the choice.

    Args:
        name: Name or file of a profile.
        tell: Gets the choice in a line.
        address: Ray cluster that will run things; without one this machine must have the profile's device.

    Raises:
        UserError: There is no such profile, its device is not here, or the address is empty.
    """
    from dure.runtime.machine import recognised_profile, require_device

    if address is not None and not address.strip():
        raise UserError(
            "it is empty",
            where="--address",
            expected="host:port or auto",
            hint="leave the option out for a local cluster",
        )
    if name is not None:
        chosen = load_profile(name)
        if address is None:
            require_device(chosen)
        return chosen
    profile, why = recognised_profile()
    tell(why)
    return profile


def check(experiments: Iterable[Experiment], *, with_tables: bool = True) -> None:
    """Check what can be known of experiments before anything starts, beyond what their sections say.

    Args:
        experiments: Resolved experiments.
        with_tables: Whether their tables must be there.

    Raises:
        UserError: A family, one of its options, the metric that chooses the best checkpoint, a table, or the
            cache is not as it must be.
    """
    from dure.family import load_family
    from dure.family.corpus import cache_folder, check_sources
    from dure.training.scores import check_best_metric

    if with_tables:
        cache_folder()
    for experiment in experiments:
        check_best_metric(experiment, load_family(experiment))
        if with_tables:
            check_sources(experiment)


def check_rows(experiments: Iterable[Experiment]) -> None:
    """Check the rows of experiments before a study starts that would meet the same mistake in every trial.

    Raises:
        UserError: A table is not what its family needs; with file, row and remedy.
    """
    from dure.family import load_family
    from dure.family.corpus import check_tables

    for experiment in experiments:
        check_tables(load_family(experiment))


def check_some_rows(experiments: Sequence[Experiment]) -> None:
    """Check before a batch starts that not all of its experiments would fail for their tables.

    One that would does not stop the others: its own trial says so.

    Raises:
        UserError: All would; what is wrong for the first of them.
    """
    wrong: list[UserError] = []
    for experiment in experiments:
        try:
            check_rows([experiment])
        except UserError as error:
            wrong.append(error)
        else:
            return
    if wrong:
        raise wrong[0]


def train(
    experiment: Experiment,
    *,
    profile: Profile,
    path: Path,
    resume: bool = False,
    address: str | None = None,
    listeners: Sequence[RunListener] = (),
    companions: Sequence[RunListener] = (),
    layout: type[RunFolder] | None = None,
) -> RunResult:
    """Run one experiment as a Ray ``TorchTrainer`` and return its result.

    One worker trains in this process and needs no cluster; more workers, or an ``address``, use one.

    Args:
        experiment: What to run.
        profile: The machine.
        path: Folder of the run.
        resume: Continue what the folder holds.
        address: Ray cluster to join.
        listeners: Who is told of progress here, in the driver.
        companions: Who is told of it where the training is; they travel.
        layout: How the folder is laid out, when it is not that of an ordinary run.

    Raises:
        UserError: The experiment, its data or the cluster is wrong.
        RunError: Training failed.
        Stopped: It ended in order because of Ctrl-C or SIGTERM; the folder can be resumed.
    """
    from dure.reporting.tracking import tracker_for
    from dure.runs.folder import RunFolder
    from dure.runs.logs import captured_output
    from dure.runtime.cluster import cluster
    from dure.runtime.fit import fit
    from dure.runtime.follow import following
    from dure.runtime.placement import require_room
    from dure.signals import Stopped, stoppable
    from dure.storage.mirror import shared_folder
    from dure.training.run import RunRequest

    folder = RunFolder(path)
    shared = shared_folder(profile, path)
    if resume:
        from dure.runs.folder import stored_experiment

        experiment = stored_experiment(path, experiment)
        finished = folder.read_result()
        if finished is not None and finished.state == "completed":
            for listener in listeners:
                listener.told(f"{finished.name}: completed earlier, so nothing is run; results in {path}")
            if shared is not None:
                mirror = shared.mirror(path.resolve())
                mirror.pull()
                mirror.push()
            return finished
    write_text(folder.experiment, dump_yaml(experiment))

    def tell(message: str) -> None:
        for listener in listeners:
            listener.told(message)

    with stoppable(path.resolve(), tell) as stop_file:
        request = RunRequest(
            experiment=experiment,
            profile=profile,
            path=path.resolve(),
            resume=resume,
            listeners=(*listeners, *companions, tracker_for(experiment)),
            layout=layout or RunFolder,
            stop_file=stop_file,
            shared=shared,
        )
        if profile.trains_in_process and address is None:
            result = fit(request)
        else:
            tell(f"{experiment.name}: {profile.num_workers} worker(s) on a cluster; results in {path}")
            # The console's terminal does not travel to the workers: it follows their records instead.
            travelling = replace(request, listeners=request.listeners[len(listeners) :])
            with (
                captured_output(path / "driver.log"),
                cluster(address, name=experiment.name) as ray_cluster,
                following(folder.metrics, listeners),
            ):
                require_room(profile, ray_cluster.nodes, experiment.training.batch_size)
                result = fit(
                    travelling, in_process=False, tell=lambda line: tell(f"{experiment.name}: {line}")
                )
            for listener in listeners:
                listener.finished(result)
    if result.state == "interrupted":
        raise Stopped
    return result


def study_experiments(
    study: BatchStudy, overrides: Iterable[str] = (), chosen: str | None = None
) -> list[Experiment]:
    """Load the experiments of a study, all with the same overrides on top.

    Args:
        study: The study.
        overrides: ``a.b=value`` texts.
        chosen: Numbers from 1 or names, with commas (``--only``); all when not given.

    Raises:
        UserError: Something in them is wrong, or ``chosen`` names none.
    """
    from dure.tuning.batch import only

    overrides = list(overrides)
    names = list(study.experiments) if chosen is None else only(study.experiments, chosen)
    return [load_experiment(name, overrides) for name in names]


@kept_in_storage
def batch(
    study: BatchStudy,
    experiments: Sequence[Experiment],
    *,
    profile: Profile,
    path: Path,
    resume: bool = False,
    address: str | None = None,
    listener: StudyListener | None = None,
) -> dict[str, Any]:
    """Run the experiments of a study side by side and return the summary.

    A finished experiment of the folder is not run again; an interrupted one continues from its checkpoint.

    Raises:
        UserError: An experiment, its data or the cluster is wrong.
        RunError: Ray does not start.
    """
    from dure.reporting.summary import summary_text
    from dure.reporting.tracking import tracker_for
    from dure.tuning.adapter import run_study
    from dure.tuning.batch import Batch

    if resume:
        from dure.runs.folder import stored_experiment

        experiments = [stored_experiment(path / each.name, each) for each in experiments]
    path = path.resolve()
    write_text(path / STUDY_FILE, dump_yaml(study))
    summary = run_study(
        Batch(study, experiments),
        profile=profile,
        path=path,
        listener=listener,
        trackers={each.name: tracker_for(each) for each in experiments},
        address=address,
    )
    write_text(path / "experiment_summary.txt", summary_text(summary))
    return summary


def predict(
    run: Path,
    source: Path,
    output: Path,
    *,
    fold: int | None = None,
    profile: Profile,
    progress: Callable[[int, int], None],
    tell: Tell,
) -> dict[str, Any]:
    """Predict a table with the final model of a run, or with all folds of a cross-validation.

    Args:
        run: Folder of a run or of an experiment's cross-validation.
        source: Table to predict.
        output: CSV to write.
        fold: Take the model of this fold only.
        profile: The machine.
        progress: Gets rows done and rows in all.
        tell: Gets one-line messages.

    Raises:
        UserError: See ``dure.family.predicting``; or there is no such fold.
    """
    from dure.crossval import fold_runs
    from dure.family.predicting import predict_file

    return predict_file(fold_runs(run, fold), source, output, profile=profile, progress=progress, tell=tell)


def score(
    predictions: Path,
    references: Path,
    *,
    id_column: str = "fname",
    prediction_column: str = "summary",
    reference_columns: Sequence[str] = ("summary",),
    tokenizer: Any = "morpheme",
    special_tokens: Sequence[str] = (),
    task: Any = "summarization",
    multi_reference: Any = "best",
) -> dict[str, Any]:
    """Score a table of predictions against a table of references; see ``dure.metrics.scoring``."""
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
        cache_folder=cache_folder(),
    )


def catalogue() -> dict[str, dict[str, str]]:
    """Return what there is: experiments, studies, search spaces and profiles by name, each with a sentence."""
    experiments = {name: load_experiment(str(file)) for name, file in library.available("experiment").items()}
    studies = {name: load_study(str(file)) for name, file in library.available("study").items()}
    spaces = {name: load_space(str(file)) for name, file in library.available("space").items()}
    profiles = {name: load_profile(str(file)) for name, file in library.available("profile").items()}
    return {
        "experiments": {name: each.experiment.description for name, each in experiments.items()},
        "studies": {name: each.description for name, each in studies.items()},
        "spaces": {name: each.description for name, each in spaces.items()},
        "profiles": {name: each.description for name, each in profiles.items()},
    }
