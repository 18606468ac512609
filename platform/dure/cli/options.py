"""Options that several verbs share, defined once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dure.cli.printing import notify
from dure.config.families import family_module, own_families
from dure.config.library import Kind, available

if TYPE_CHECKING:
    from dure.studies.life_cycle import Asked


def named(*kinds: Kind) -> Callable[[str], list[str]]:
    """Return what completes the name of something in the shell."""

    def complete(incomplete: str) -> list[str]:
        return [name for kind in kinds for name in available(kind) if name.startswith(incomplete)]

    return complete


def settings(incomplete: str) -> list[str]:
    """Complete the dotted key of a setting in the shell, section by section: ``tr`` → ``training.`` → ``training.epochs=``.

    What an experiment's family takes under ``task.`` is not known here.
    """
    from dure.config.schema import Experiment
    from dure.config.sections import dotted_keys, section_at

    if "=" in incomplete:
        return []
    depth = incomplete.count(".") + 1
    found: dict[str, None] = {}
    for key in dotted_keys(Experiment, with_sections=True):
        parts = key.split(".")
        if len(parts) == depth and key.startswith(incomplete):
            found[key + ("=" if section_at(Experiment, parts) is None else ".")] = None
    return list(found)


def named_or_setting(*kinds: Kind) -> Callable[[str], list[str]]:
    """Return what completes names of things, and beside them dotted keys of settings."""
    names = named(*kinds)
    return lambda incomplete: [*names(incomplete), *settings(incomplete)]


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names and the settings among the words of a command; a file of a name with ``=`` is no setting."""
    settings = [word for word in words if "=" in word and not os.path.isfile(word)]  # noqa: PTH113 - of any length
    return [word for word in words if word not in settings], settings


def family_names(incomplete: str) -> list[str]:
    """Complete the name of one of dure's own families in the shell."""
    return [name for name in own_families() if name.startswith(incomplete)]


def corpus_names(incomplete: str) -> list[str]:
    """Complete the name of a sample corpus in the shell."""
    return [name for name in family_module("trainables.samples").CORPORA if name.startswith(incomplete)]


ExperimentName = Annotated[
    str,
    typer.Argument(
        help="Experiment by name (see `dure list`) or YAML file.",
        metavar="EXPERIMENT",
        autocompletion=named("experiment"),
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings laid over the YAML, such as training.learning_rate=3e-5.",
        autocompletion=settings,
    ),
]
Reading = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="How the table is read, such as data.encoding=cp949 or data.on_bad_row=skip.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        help="Machine profile by name or file; recognised when not given.",
        metavar="NAME",
        autocompletion=named("profile"),
    ),
]


def _or_cluster_of_job(address: str | None) -> str | None:
    from dure.runtime.cluster import cluster_of_job

    return cluster_of_job() if address is None else address


Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to join: host:port, or auto for that of RAY_ADDRESS or of this machine. When not given, "
        "a job joins its cluster, and elsewhere a local one is started.",
        metavar="URL",
        callback=_or_cluster_of_job,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder of the run or study; outputs/NAME/TIME when not given ($DURE_OUTPUTS/NAME/TIME in a job).",
        metavar="DIR",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue in --output, or in the newest folder of that name.")
]
Rehearse = Annotated[
    bool,
    typer.Option(
        "--rehearse", help="A miniature with random weights on few rows: exercises everything in minutes."
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Import the family that the folder names, also when it did not come with dure; whoever wrote folder and "
        "module can run anything here.",
    ),
]
FromSweep = Annotated[
    Path | None,
    typer.Option("--from-sweep", help="Take the best values of this folder of `dure sweep`.", metavar="DIR"),
]
OneEpoch = Annotated[bool, typer.Option("--one-epoch", "-1", help="One pass over the data.")]
Samples = Annotated[
    int | None, typer.Option("--samples", help="Use at most N training and N validation rows.", metavar="N")
]
Figures = Annotated[
    Literal["pdf", "svg"] | None,
    typer.Option("--figures", help="Draw every picture in this format too, beside its PNG."),
]
RequireTargets = Annotated[
    bool,
    typer.Option(
        "--require-targets", help="End with exit code 1 when one of the `targets:` of the YAML is missed."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would run, resolved, and stop.")]
Server = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Dashboard (http://host:8265) or cluster (host:port). When not given, that of RAY_API_SERVER_ADDRESS, of "
        "RAY_ADDRESS, or of the last `ray start` on this machine.",
        metavar="URL",
    ),
]
Run = Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")]
Predictor = Annotated[
    Path,
    typer.Argument(
        help="Folder of a finished run, of a cross-validation, or of an export.", metavar="RUN|EXPORT"
    ),
]
Fold = Annotated[
    int | None, typer.Option(help="Fold whose model predicts; all together when not given.", metavar="N")
]
JobName = Annotated[str, typer.Argument(help="Name of a job, as `dure jobs` shows it.", metavar="ID")]


@dataclass(frozen=True)
class Where:
    """Options of every verb that runs something in a folder of its own."""

    profile: ProfileOption = None
    address: Address = None
    output: Output = None
    figures: Figures = None
    require_targets: RequireTargets = False
    dry_run: DryRun = False

    def asked(self, **more: Any) -> Asked:
        """Return what these options and those of a subclass say, for :mod:`dure.studies.life_cycle`."""
        from dure.config.loading import load_profile
        from dure.studies.life_cycle import Asked

        if self.dry_run and self.profile is not None:
            load_profile(self.profile)  # must be one, but not of this machine
        said = {each.name: getattr(self, each.name) for each in fields(Asked) if hasattr(self, each.name)}
        return Asked(**{**said, "notify": notify, **more})


@dataclass(frozen=True)
class Common(Where):
    """Options of every verb that runs an experiment or a study."""

    resume: Resume = False
    rehearse: Rehearse = False
    samples: Samples = None


@dataclass(frozen=True)
class Training(Common):
    """The same, where epochs are the experiment's."""

    one_epoch: OneEpoch = False
