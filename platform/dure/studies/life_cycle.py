"""The life of a study of any kind: plan, checks, folder, run, results, report.

``dure run``, every verb and the Python interface go through here; what differs by kind is asked of
:class:`dure.studies.kind.Kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dure.config.loading import dump_yaml
from dure.config.rehearsal import with_options
from dure.config.schema import Experiment, Profile
from dure.config.tree import flat, plain, with_overrides
from dure.events import Notify, silent
from dure.files import remove_leftovers, write_text
from dure.outputs import output_folder, working_folder
from dure.reporting.page import page_attempted
from dure.reporting.plots import FigureFormat, figures_beside
from dure.runs.folder import RUN_RECORD, STUDY_FILE, RunResult, vanished
from dure.runs.lock import held
from dure.runs.resuming import require_continuable
from dure.signals import Interrupted
from dure.storage.pushing import kept_in_storage
from dure.studies.kind import Kind, Session, Shape
from dure.studies.plan import StudyPlan
from dure.studies.study import stored_study, with_options_line

if TYPE_CHECKING:
    from dure.preflight.before import Files

Plan = TypeVar("Plan", bound=StudyPlan)


@dataclass(frozen=True)
class Asked:
    """What the common options say, beside the study itself.

    The command line gives each its words in the help, and to each verb those that it takes (``dure.cli.options``);
    Python the types of a call (``dure.running.Common``). Both end here, and all that reads options reads these.
    """

    profile: str | Profile | None = None
    """Machine profile, or its name or file; recognised when not given."""
    address: str | None = None
    """Ray cluster to join."""
    output: Path | None = None
    """Folder of the study."""
    resume: bool = False
    """Continue in ``output``, or in the newest folder of the study's name."""
    back_to: Path | None = None
    """A checkpoint of ``output`` to go back to."""
    rehearse: bool = False
    """A miniature model on few rows for few steps."""
    one_epoch: bool = False
    """One pass over the data."""
    samples: int | None = None
    """Use at most so many training rows, and validation rows."""
    figures: FigureFormat | None = None
    """Format in which every picture is drawn beside its PNG."""
    require_targets: bool = False
    """Whether the experiments must have targets; who asked decides what a miss means."""
    dry_run: bool = False
    """Only resolve; neither the machine nor tables have to be here."""
    notify: Notify = silent
    """Gets one-line messages before the study starts."""

    @property
    def shape(self) -> Shape:
        """What the options make of an experiment."""
        return partial(with_options, rehearse=self.rehearse, one_epoch=self.one_epoch, samples=self.samples)

    @property
    def words(self) -> tuple[str, ...]:
        """The options that decide results, as a command has them."""
        flags = {"--rehearse": self.rehearse, "--one-epoch": self.one_epoch}
        rows = () if self.samples is None else (f"--samples {self.samples}",)
        return (*(flag for flag, given in flags.items() if given), *rows)

    @cached_property
    def machine(self) -> Profile:
        """The machine; a dry run needs none."""
        from dure.runtime.placement import choose_profile

        return choose_profile(self.profile, self.notify, address=self.address)


def continued_folder(plan: type[StudyPlan], name: str, asked: Asked) -> Path | None:
    """Return the folder that a command continues; None for a new study.

    Raises:
        UserError: There is nothing to resume, or storage does not answer.
    """
    resume = asked.resume
    if plan.continues_by_itself and asked.output is not None:
        resume = resume or (asked.output / STUDY_FILE).is_file()
    if not resume:
        return None
    machine = None if asked.dry_run else asked.machine
    return output_folder(
        name, asked.output, resume=True, record=STUDY_FILE, profile=machine, notify=asked.notify
    )


def stored_for(study: Plan, asked: Asked) -> Plan | None:
    """Return the study that a command continues, as it was started; None for a new one.

    Raises:
        UserError: There is nothing to resume, or the folder is of another kind of study.
    """
    path = continued_folder(type(study), study.named(study.load()).name, asked)
    return None if path is None else stored_study(path, type(study))


def prepare(study: StudyPlan, asked: Asked) -> tuple[Kind[Any, Any], Path | None]:
    """Return a study that is ready to be checked, and the folder that it continues.

    Raises:
        UserError: The study, one of its experiments or the folder is wrong, or it changes what cannot change.
    """
    experiments = study.load()
    study = study.named(experiments)
    path = continued_folder(type(study), study.name, asked)
    if path is None:
        study.require_read(["training.epochs"] if asked.one_epoch else (), "--one-epoch")
        study.require_read(flat(plain(with_overrides({}, study.overrides))), "overrides")
    else:
        study = study.continued(stored_study(path, type(study)), str(path))
    study = study.resolved(experiments)
    return study.kind_of()(study, experiments, asked.shape), path


def preview(study: StudyPlan, asked: Asked) -> Kind[Any, Any]:
    """Return a study as it would run, with its settings checked; what ``--dry-run`` prints.

    Raises:
        UserError: As :func:`run`, as far as that can be known without tables and machine.
    """
    from dure.preflight.before import check_settings

    kind, _ = prepare(study, asked)
    check_settings(kind.checked(), with_tables=False)
    return kind


def run(study: StudyPlan, asked: Asked) -> Any:
    """Run a study from its plan to its results, which are of its own kind.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Ray does not start, or a step failed.
        Interrupted: It ended cleanly because of Ctrl-C or SIGTERM; the folder can be resumed.
    """
    from dure.jobs.background_records import claim
    from dure.preflight.before import before_run, check_settings
    from dure.reporting.console import RunConsole, StudyConsole
    from dure.reporting.terminal import Terminal

    kind, path = prepare(study, asked)
    check_settings(kind.checked())  # To recognise the machine takes torch, and seconds.
    machine, resume = asked.machine, path is not None
    before_run(
        kind.read(),
        files=_still_written(kind, path),
        profile=machine,
        output=path or asked.output,
        address=asked.address,
        any_will_do=kind.runs_what_it_can,
        notify=asked.notify,
    )
    with (
        Terminal() as screen,
        working_folder(kind.study.name, asked.output, continued=path, profile=machine) as folder,
    ):
        claim(folder, pid_file=kind.pid_file)
        session = Session(
            machine,
            folder,
            resume,
            asked.back_to,
            asked.address,
            StudyConsole(screen, metrics=kind.watched()),
            RunConsole(screen),
            asked.words,
        )
        with figures_beside(asked.figures):
            return conduct(kind, session)


def run_experiment(
    experiment: Experiment,
    asked: Asked,
    *,
    claimed: Callable[[Path], None] = lambda folder: None,
) -> tuple[RunResult, Path]:
    """Run one experiment from its checks to its result.

    ``claimed`` gets the folder as soon as it is this run's.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Training failed; the folder says why.
        Interrupted: It ended cleanly because of Ctrl-C or SIGTERM; the folder can be resumed.
    """
    from dure.jobs.background_records import claim
    from dure.preflight.before import before_run, check_settings, files_of_run
    from dure.reporting.console import RunConsole
    from dure.reporting.terminal import Terminal
    from dure.runtime.experiment import train

    chosen = asked.shape(experiment)
    check_settings([chosen])  # To recognise the machine takes torch, and seconds.
    machine = asked.machine
    continued = (
        output_folder(chosen.name, asked.output, resume=True, profile=machine, notify=asked.notify)
        if asked.resume
        else None
    )
    before_run(
        [chosen],
        files=files_of_run(chosen, continued),
        profile=machine,
        output=continued or asked.output,
        address=asked.address,
        notify=asked.notify,
    )
    with (
        Terminal() as screen,
        working_folder(chosen.name, asked.output, continued=continued, profile=machine) as path,
    ):
        claimed(path)
        claim(path)
        with figures_beside(asked.figures):
            result = train(
                chosen,
                profile=machine,
                path=path,
                resume=asked.resume,
                address=asked.address,
                follower=RunConsole(screen),
            )
    return result, path


def _still_written(kind: Kind[Any, Any], path: Path | None) -> Sequence[Files]:
    """Return what a study will still leave on the disk: nothing when it is finished and as it was."""
    if path is not None and kind.is_completed(path) and stored_study(path, type(kind.study)) == kind.study:
        return []
    return kind.files(path)


def conduct(kind: Kind[Any, Any], session: Session) -> Any:
    """Run a study that is checked in its folder, and leave its results there.

    Raises:
        UserError: An experiment, the folder or the cluster is wrong, or settings changed that cannot.
        RunError: Ray does not start, or a step failed.
    """
    from dure.reporting.columns import plain_text

    session = replace(session, path=session.path.resolve())
    path = session.path
    with kept_in_storage(session.profile, path, session.follower.notified), held(path):
        kept = kind.stored()
        if session.resume:
            _require_continuable(kind, path)
        kind.begin(session)
        write_text(path / STUDY_FILE, with_options_line(dump_yaml(kind.study), session.words))
        for folder, experiment in kept.items():
            write_text(path / folder / RUN_RECORD, dump_yaml(experiment))
        try:
            results = kind.run(session)
        except Interrupted:
            if (path / kind.results_file).is_file():
                _report(path, session.follower.notified)
            raise
        except Exception as error:
            if not (path / STUDY_FILE).is_file():
                raise vanished(path) from error
            raise
        if not (path / STUDY_FILE).is_file():
            raise vanished(path)
        results = results.with_values(targets=kind.reached(results))
        results.write(path / kind.results_file)
        if kind.text_file is not None:
            write_text(path / kind.text_file, plain_text(kind.report(results)))
        _report(path, session.follower.notified)
        return results


def _report(path: Path, notify: Notify) -> None:
    from dure.studies.reports import leave_study_report

    with page_attempted(path, notify):
        leave_study_report(path)


def _require_continuable(kind: Kind[Any, Any], path: Path) -> None:
    """Check that a folder can go on with a study, and remove what a kill left half written in it."""
    from dure.family.same_rows import require_same_rows

    for folder, experiment in kind.stored().items():
        require_continuable(path / folder, experiment)
        require_same_rows(experiment, path / folder)
    remove_leftovers(path)


def run_experiments(
    study: StudyPlan,
    experiments: Sequence[Experiment],
    shape: Shape = lambda experiment: experiment,
    **session: Any,
) -> Any:
    """Run a study of experiments that are at hand, not named in it; ``session`` is what :class:`Session` takes."""
    study = study.named(experiments).resolved(experiments)
    return conduct(study.kind_of()(study, experiments, shape), Session(**session))
