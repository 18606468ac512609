"""Serve the model of a run over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result
from dure.imports import require_packages

TOKEN = "DURE_SERVE_TOKEN"
"""Environment variable with the token, where no file is given."""


Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 takes any that is free.", metavar="N")
]
Replicas = Annotated[
    int | None,
    typer.Option(min=1, help="Processes with the model; the profile's workers when not given.", metavar="N"),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most texts that are predicted together; what validation took when not given.",
        metavar="N",
    ),
]
MaxBytes = Annotated[int, typer.Option(min=1024, help="Largest body of a request, in bytes.", metavar="N")]
TimeLimit = Annotated[
    float, typer.Option(min=0.1, help="Seconds in which a request is answered.", metavar="SECONDS")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help=f"File with the token that requests must show; that of {TOKEN} when not given.",
        metavar="FILE",
    ),
]


@verb("serve", place=195)
def serve(
    run: options.Predictor,
    port: Port = 8000,
    replicas: Replicas = None,
    batch_size: BatchSize = None,
    max_bytes: MaxBytes = 1 << 20,
    time_limit: TimeLimit = 30.0,
    token_file: TokenFile = None,
    fold: options.Fold = None,
    profile: options.ProfileOption = None,
    address: options.Address = None,
    trust_code: options.TrustCode = False,
) -> None:
    """Serve a model over HTTP on this machine, with a page to try it by hand; Ctrl-C ends it cleanly."""
    from dure.family.run_weights import weights_at
    from dure.serving.openapi import Serving
    from dure.serving.server import PACKAGES, read_token, serve_models
    from dure.studies.crossval.driver import fold_runs

    require_packages(PACKAGES, extra="serve", where="dure serve")
    asked = Serving(
        port=port,
        num_replicas=replicas,
        batch_size=batch_size,
        max_bytes=max_bytes,
        time_limit=time_limit,
        token=read_token(token_file, TOKEN),
        address=address,
    )

    def ready(facts: dict[str, Any]) -> None:
        count = f"{facts['replicas']} replica{'s' if facts['replicas'] > 1 else ''}"
        text = f"serving {facts['experiment']} ({facts['model']}) at {facts['url']} ({count} on {facts['device']}; Ctrl-C ends it)"
        print_result(facts, text)

    runs = fold_runs(run, fold)
    for each in runs:
        weights_at(each)  # what is wrong with the folders is told before torch looks for the machine
    from dure.runtime.placement import choose_profile

    statuses = serve_models(
        runs,
        asked,
        choose_profile(profile, notify, address=address),
        trust_code=trust_code,
        ready=ready,
        notify=notify,
    )
    said = ", ".join(f"{number:,} with status {status}" for status, number in sorted(statuses.items()))
    notify(f"ended; requests: {said or 'none'}")
