"""Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console, RenderableType

from dure.config.loading import dump_yaml
from dure.config.schema import Section


def tell(message: str) -> None:
    """Show one line of progress."""
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_result(value: Any, shown: RenderableType, *, as_json: bool) -> None:
    """Print a result for people, or as one JSON object."""
    if as_json:
        print_json(value)
    else:
        # In a pipe there is no width to fit into, and rich would assume 80 columns.
        width = None if sys.stdout.isatty() else 10_000
        Console(width=width, soft_wrap=isinstance(shown, str)).print(shown, markup=False, highlight=False)


def print_yaml(*sections: Section, as_json: bool) -> None:
    """Print resolved sections as YAML documents, or as one JSON object (a list when there are several)."""
    if as_json:
        values = [section.model_dump(mode="json") for section in sections]
        print_json(values[0] if len(values) == 1 else {"experiments": values})
    else:
        print("---\n".join(dump_yaml(section) for section in sections), end="")
