"""The command that makes a table which dure reads of a file that it does not."""

from __future__ import annotations

import json
import shlex
from pathlib import Path


def to_parquet(reader: str, path: Path, *options: str) -> str:
    """Return the command of a shell that reads a file by a library's function, as ``pandas.read_orc``, and writes it anew.

    The new file lies beside it. Options are further arguments of the function, as Python has them.
    """
    source, target = (literal(str(each)) for each in (path, path.with_suffix(".parquet")))
    call = f"{reader}({', '.join((source, *options))}).to_parquet({target})"
    code = f"import {reader.partition('.')[0]}; {call}"
    return f"python -c {shlex.quote(code)}"


def literal(text: str) -> str:
    """Return a text as Python has it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)
