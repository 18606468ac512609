"""Give the model of a run to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result
from dure.config.families import trusting


@verb("export", place=197)
def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a finished run, or a file of weights in one: of an epoch, best_model.pt, ema.pt, "
            "crossover_final.pth.",
            metavar="RUN",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder of the export.", metavar="DIR")],
    overrides: options.Reading = None,
    format: Annotated[
        Literal["transformers", "adapter", "onnx", "ctranslate2"],
        typer.Option("--format", help="What it becomes."),
    ] = "transformers",
    quantization: Annotated[
        str | None,
        typer.Option(help="How ctranslate2 packs numbers: int8, int8_float32, float16 …", metavar="KIND"),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Validation rows that are compared; all when not given.", metavar="N"),
    ] = None,
    accept: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least part of the rows that must agree.", metavar="SHARE")
    ] = 1.0,
    licence: Annotated[
        str, typer.Option("--license", help="Licence in the model card, such as apache-2.0.", metavar="NAME")
    ] = "unknown",
    profile: options.ProfileOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    trust_code: options.TrustCode = False,
) -> None:
    """Export the model of a run, if it predicts there what it predicts here."""
    from dure.exports.exporting import Asked, export_run
    from dure.exports.model_card import speeds
    from dure.reporting.console import progress_bar
    from dure.runtime.placement import choose_profile

    with progress_bar("comparing") as progress, trusting(trust_code):
        machine = choose_profile(profile, notify)
        record = export_run(
            run,
            to,
            Asked(format, quantization, rows, accept, licence, force),
            overrides=tuple(overrides or ()),
            profile=machine,
            progress=progress,
            notify=notify,
        )
    agreement = record.agreement
    text = (
        f"{to}: {record.source} as {record.format}; {agreement['num_equal']:,} of {agreement['num_rows']:,} rows "
        f"agree, {speeds(record, machine.device)}"
    )
    print_result({"path": str(to), **record.model_dump(mode="json")}, text)
