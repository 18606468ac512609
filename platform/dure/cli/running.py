"""What verbs that run something have in common: dry run, run, print, exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dure.cli.printing import print_json, print_result, print_yaml
from dure.errors import RunError

if TYPE_CHECKING:
    from dure.config.schema import Experiment
    from dure.studies.life_cycle import Asked
    from dure.studies.plan import StudyPlan


def run_study(study: StudyPlan, asked: Asked, *, as_json: bool) -> int:
    """Run a study and print its results, or with ``--dry-run`` what would run; returns the exit code."""
    from dure.reporting.console import terminal
    from dure.studies import life_cycle

    if asked.dry_run:
        kind = life_cycle.preview(study, asked)
        print_yaml(kind.study, kind.shown(), as_json=as_json)
        return 0
    with terminal() as screen:
        results = life_cycle.run(study, asked, screen=screen)
    print_result(results.as_json(), study.kind_of().table(results), as_json=as_json)
    return 0 if results.state == "completed" else 1


def run_experiment(experiment: Experiment, asked: Asked, *, as_json: bool) -> int:
    """Run one experiment and print its result, or with ``--dry-run`` what would run; returns the exit code."""
    from dure.jobs.background_folders import claim
    from dure.outputs import output_folder, working_folder
    from dure.preflight.before import before_run, check_settings, files_of_run
    from dure.reporting.console import RunConsole, terminal
    from dure.reporting.summary import result_report
    from dure.runs.folder import RunFolder
    from dure.runtime.experiment import train

    chosen = asked.shape(experiment)
    check_settings(
        [chosen], with_tables=not asked.dry_run
    )  # To recognise the machine takes torch, and seconds.
    machine = asked.machine
    if machine is None:
        print_yaml(None, [chosen], as_json=as_json)
        return 0
    continued = (
        output_folder(chosen.name, asked.output, resume=True, profile=machine, notify=asked.notify)
        if asked.resume
        else None
    )
    before_run(
        [chosen],
        [chosen],
        files=files_of_run(chosen, continued),
        profile=machine,
        output=continued or asked.output,
        address=asked.address,
        notify=asked.notify,
    )
    with working_folder(chosen.name, asked.output, continued=continued, profile=machine) as path:
        claim(path)
        try:
            with terminal() as screen:
                result = train(
                    chosen,
                    profile=machine,
                    path=path,
                    resume=asked.resume,
                    address=asked.address,
                    followers=[RunConsole(screen)],
                )
        except RunError:
            failed = RunFolder(path).read_result()
            if as_json and failed is not None:
                print_json({**failed.as_dict(), "path": str(path)})
            raise
    values = {**result.as_dict(), "path": str(path)}
    print_result(values, result_report(values), as_json=as_json)
    return 0 if result.state == "completed" else 1
