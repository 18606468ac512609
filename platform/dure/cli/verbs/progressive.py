"""Train on more and more of the data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.studies.choices import OnBaseline


@dataclass(frozen=True)
class Growth:
    """Options that say how the data grows, what is tried side by side, and who goes on."""

    start_ratio: Annotated[
        str | None,
        typer.Option(
            help="Part of the data of the first stage (0.1). In a folder with stages of smaller ratios, begin "
            "here again, from the best model of the stage before.",
            metavar="RATIO",
        ),
    ] = None
    step_size: Annotated[
        str | None, typer.Option(help="Part of the data that each stage adds (0.1).", metavar="RATIO")
    ] = None
    max_ratio: Annotated[
        str | None, typer.Option(help="Part of the data of the last stage (1.0).", metavar="RATIO")
    ] = None
    ratios: Annotated[
        str | None,
        typer.Option(help="Parts of the data of all stages, in place of these three.", metavar="LIST"),
    ] = None
    epochs_per_stage: Annotated[
        int | None, typer.Option(help="Passes over the rows of a stage (2).", metavar="N")
    ] = None
    max_batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            help="Most rows of one forward pass, taken on all of the data (4); accumulation keeps the effective batch.",
            metavar="N",
        ),
    ] = None
    max_memory_mb: Annotated[
        int | None,
        typer.Option(
            help="Above this, a warning is told and the next stage takes a smaller batch at a time.",
            metavar="MB",
        ),
    ] = None
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            help="Settings to try side by side: KEY=VALUE,VALUE, or a search space by name or file. At every "
            "ratio the best part of them goes on.",
            metavar="WHAT",
        ),
    ] = None
    num_candidates: Annotated[
        int | None, typer.Option(help="Points along every range of a search space (5).", metavar="N")
    ] = None
    reduction: Annotated[
        int | None,
        typer.Option("--eta", help="Of n candidates, n // ETA go on (3); 1 keeps all.", metavar="ETA"),
    ] = None
    min_gain: Annotated[
        float | None,
        typer.Option(
            help="Stop when the next ratio gains less than this; never when not given.", metavar="GAIN"
        ),
    ] = None
    on_baseline: Annotated[
        OnBaseline | None,
        typer.Option(
            help="What happens to a candidate that is no better than a model which learns nothing at the first "
            "ratio: stop, and in a rehearsal warn."
        ),
    ] = None


@verb("progressive", place=50, background=True)
def progressive(
    experiment: options.ExperimentName,
    overrides: options.Overrides = None,
    pretrained: Annotated[
        str | None,
        typer.Option(help="Checkpoint to begin with; the experiment's when not given.", metavar="NAME"),
    ] = None,
    *,
    growth: Growth,
    common: options.Common,
) -> int:
    """Train on more and more of the data, each stage from the best model of the stage before.

    Started again with the same --output, it continues after the last finished stage.
    """
    from dure.cli.running import run_study
    from dure.config.loading import checked
    from dure.studies.life_cycle import stored_for
    from dure.studies.progressive.plan import ProgressiveStudy, plan_progressive

    own = [] if pretrained is None else [f"model.checkpoint={pretrained}"]
    said = {"experiment": experiment, "overrides": [*own, *(overrides or ())]}
    bare = checked(ProgressiveStudy, said, {}, "dure progressive")
    asked = common.asked()
    study = plan_progressive(bare, before=stored_for(bare, asked), **asdict(growth))
    return run_study(study, asked)
