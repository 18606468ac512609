"""The file ``.env`` of the working folder: keys such as ``WANDB_API_KEY`` for the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

FILE = ".env"
_MAX_BYTES = 1 << 16
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_QUOTED = re.compile(r"""(?:"([^"]*)"|'([^']*)')\s*(?:#.*)?""")


def load_dotenv(folder: Path) -> list[str]:
    """Put what ``.env`` says into the environment, and return the names that were not there before.

    What the environment has already stays. A file that cannot be read is none.
    """
    added = []
    for name, value in _assignments(folder / FILE):
        if name not in os.environ:
            os.environ[name] = value
            added.append(name)
    return added


def _assignments(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None or "\0" in line:
            continue
        quoted = _QUOTED.fullmatch(found[2])
        if quoted is None:
            yield found[1], re.sub(r"(^|\s)#.*$", "", found[2]).strip()
        else:
            yield found[1], quoted[1] if quoted[1] is not None else quoted[2]
