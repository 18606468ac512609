"""What verbs that run something have in common: dry run, run, print, exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dure.cli.printing import is_json, notify, print_json, print_result, print_yaml
from dure.errors import RunError, UserError, typed_path

if TYPE_CHECKING:
    from dure.config.schema import Experiment
    from dure.metrics.targets import Reached
    from dure.studies.life_cycle import Asked
    from dure.studies.plan import StudyPlan


def say_next(*commands: str) -> None:
    """Say what a user might do next, as commands."""
    for place, command in enumerate(commands):
        notify(f"{'next: ' if place == 0 else '      '}{command}")


def run_study(study: StudyPlan, asked: Asked) -> int:
    """Run a study and print its results, or with ``--dry-run`` what would run; returns the exit code."""
    from dure.studies import life_cycle

    if asked.dry_run:
        kind = life_cycle.preview(study, asked)
        print_yaml(kind.study, kind.shown())
        return 0
    if asked.require_targets:
        _require_any(study.load())
    results = life_cycle.run(study, asked)
    of_kind = study.kind_of()
    print_result(results.as_json(), of_kind.report(results))
    say_next(*of_kind.next_commands(results))
    return _exit_code(results.state, results.targets, asked)


def run_experiment(experiment: Experiment, asked: Asked) -> int:
    """Run one experiment and print its result, or with ``--dry-run`` what would run; returns the exit code."""
    from dure.family.predicting import predict_command
    from dure.pages.run_facts import worth_of
    from dure.preflight.before import check_settings
    from dure.reporting.summary import result_report
    from dure.runs.folder import RunFolder
    from dure.studies import life_cycle

    if asked.dry_run:
        chosen = asked.shape(experiment)
        check_settings([chosen], with_tables=False)
        print_yaml(None, [chosen])
        return 0
    if asked.require_targets:
        _require_any([experiment])
    folders: list[Path] = []
    try:
        result, path = life_cycle.run_experiment(experiment, asked, claimed=folders.append)
    except RunError:
        failed = RunFolder(folders[0]).read_result() if folders else None
        if is_json() and failed is not None:
            print_json({**failed.as_dict(), "path": str(folders[0])})
        raise
    values = {**result.as_dict(), "path": str(path)}
    print_result(values, result_report(values, worth_of(RunFolder(path))))
    if result.state == "completed":
        say_next(
            predict_command(path, path),
            f"dure evaluate {typed_path(path)} TABLE",
        )
    return _exit_code(result.state, result.targets, asked)


def _require_any(experiments: Sequence[Experiment]) -> None:
    """Check that there are targets which can be missed."""
    if not any(each.targets for each in experiments):
        metric = experiments[0].training.best_metric
        raise UserError(
            "there are no targets to require",
            where="--require-targets",
            expected="targets: {METRIC: VALUE} in the YAML",
            hint=f"targets.{metric}=VALUE",
        )


def _exit_code(state: str, targets: Sequence[Reached], asked: Asked) -> int:
    """Return 0 for what came to its end and, where that was asked for, met its targets; else 1, and why."""
    from dure.reporting.targets import missed

    if state != "completed":
        return 1
    miss = missed(targets) if asked.require_targets else ""
    if miss:
        notify(miss)
    return 1 if miss else 0
