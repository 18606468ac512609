"""The command that converts a file which dure cannot read into a table which it can."""

from __future__ import annotations

import json
import shlex
from pathlib import Path


def to_parquet(reader: str, path: Path, *options: str) -> str:
    """Return the shell command that converts a file to Parquet beside it, by a reader such as ``pandas.read_orc``.

    ``options`` are further arguments of the reader, as Python writes them.
    """
    source, target = (literal(str(each)) for each in (path, path.with_suffix(".parquet")))
    call = f"{reader}({', '.join((source, *options))}).to_parquet({target})"
    code = f"import {reader.partition('.')[0]}; {call}"
    return f"python -c {shlex.quote(code)}"


def literal(text: str) -> str:
    """Return a text as Python has it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)
