"""Name what there is."""

from __future__ import annotations

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("list", place=220)
def list_(as_json: options.Json = False) -> None:
    """List experiments, studies and profiles."""
    from dure import api
    from dure.reporting.summary import catalogue_table

    catalogue = api.catalogue()
    print_result(catalogue, catalogue_table(catalogue), as_json=as_json)
