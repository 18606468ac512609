"""The verb that grows the data: progressive."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import app
from dure.cli.printing import print_result, print_yaml, results_only_on_stdout, tell
from dure.config.schema import Experiment
from dure.runs.folder import STUDY_FILE
from dure.studies.progressive.plan import OnBaseline, candidate_experiments, plan_progressive


@app.command()
@results_only_on_stdout
def progressive(
    experiment: Annotated[
        str,
        typer.Argument(
            help="Experiment by name (see `dure list`) or YAML file.",
            metavar="EXPERIMENT",
            autocompletion=options.experiment_names,
        ),
    ],
    overrides: options.Overrides = None,
    pretrained: Annotated[
        str | None,
        typer.Option(help="Checkpoint to begin with; the experiment's when not given.", metavar="NAME"),
    ] = None,
    start_ratio: Annotated[
        str | None,
        typer.Option(
            help="Part of the data of the first stage (0.1). In a folder with stages of smaller ratios, begin "
            "here again, from the best model of the stage before.",
            metavar="RATIO",
        ),
    ] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Part of the data that each stage adds (0.1).", metavar="RATIO")
    ] = None,
    max_ratio: Annotated[
        str | None, typer.Option(help="Part of the data of the last stage (1.0).", metavar="RATIO")
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option(help="Parts of the data of all stages, in place of these three.", metavar="LIST"),
    ] = None,
    epochs_per_stage: Annotated[
        int | None, typer.Option(help="Passes over the rows of a stage (2).", metavar="N")
    ] = None,
    max_memory_mb: Annotated[
        int | None,
        typer.Option(
            help="Above this, warn, and let the next stage take a smaller batch at a time.", metavar="N"
        ),
    ] = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            help="Settings to try side by side: KEY=VALUE,VALUE, or a search space by name or file. At every "
            "ratio the best part of them goes on.",
            metavar="WHAT",
        ),
    ] = None,
    num_candidates: Annotated[
        int | None, typer.Option(help="Points along every range of a search space (5).", metavar="N")
    ] = None,
    reduction: Annotated[
        int | None,
        typer.Option("--eta", help="Of n candidates, n // ETA go on (3); 1 keeps all.", metavar="ETA"),
    ] = None,
    min_gain: Annotated[
        float | None,
        typer.Option(
            help="Stop when the next ratio gains less than this; never when not given.", metavar="GAIN"
        ),
    ] = None,
    on_baseline: Annotated[
        OnBaseline | None,
        typer.Option(
            help="What happens to a candidate that is no better than a model which learns nothing at the first "
            "ratio: stop, and in a rehearsal warn."
        ),
    ] = None,
    profile: options.ProfileOption = None,
    address: options.Address = None,
    output: options.Output = None,
    resume: options.Resume = False,
    rehearse: options.Rehearse = False,
    samples: options.Samples = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Train on more and more of the data, each stage from the best model of the stage before.

    Started again with the same --output, it continues after the last finished stage.
    """
    from dure import api
    from dure.jobs.background_folders import claim
    from dure.reporting.console import StudyConsole, terminal
    from dure.studies.progressive import driver as growth
    from dure.studies.progressive.report import progressive_table

    own = [] if pretrained is None else [f"model.checkpoint={pretrained}"]

    def shape(chosen: Experiment) -> Experiment:
        return api.shaped(chosen, rehearse=rehearse, samples=samples)

    chosen = api.load_experiment(experiment, [*own, *(overrides or ())])
    name = f"{chosen.name[:80]}-progressive"
    resume = resume or (output is not None and (output / STUDY_FILE).is_file())
    machine = None if dry_run else api.choose_profile(profile, tell, address=address)
    path = (
        api.output_folder(name, output, resume=True, record=STUDY_FILE, profile=machine) if resume else None
    )
    begin_again = path is not None and growth.begins_again(path, start_ratio)
    study = plan_progressive(
        chosen,
        start_ratio=start_ratio,
        step_size=step_size,
        max_ratio=max_ratio,
        ratios=ratios,
        epochs_per_stage=epochs_per_stage,
        max_memory_mb=max_memory_mb,
        candidates=candidates or (),
        num_candidates=num_candidates,
        reduction=reduction,
        min_gain=min_gain,
        # A rehearsal shows that everything works; its few rows need not teach random weights anything.
        on_baseline=on_baseline or ("warn" if rehearse else None),
        stored=path,
    )
    api.check([shape(each) for each in candidate_experiments(study, chosen)], with_tables=not dry_run)
    if machine is None:
        print_yaml(study, shape(chosen), as_json=as_json)
        return 0
    api.check_rows([shape(each) for each in candidate_experiments(study, chosen)])
    path = path or api.output_folder(name, output, resume=False, profile=machine)
    claim(path, pid_file=growth.PID)
    with terminal() as screen:
        results = growth.progressive(
            study,
            chosen,
            profile=machine,
            path=path,
            shape=shape,
            resume=resume,
            begin_again=begin_again,
            address=address,
            follower=StudyConsole(screen, metrics=[chosen.training.best_metric]),
        )
    print_result(results, progressive_table(results), as_json=as_json)
    return 0 if results["state"] == "completed" else 1
